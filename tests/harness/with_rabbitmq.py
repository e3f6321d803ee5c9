"""`python -m harness.with_rabbitmq -- COMMAND...` runs COMMAND with a private node's URL in IMAGEWRIGHT_TEST_AMQP."""

import os
import subprocess
import sys
import time

from harness.rabbitmq import Broker


def main(words: list[str]) -> int:
    command = words[1:] if words[:1] == ["--"] else words
    if not command:
        print(__doc__, file=sys.stderr)
        return 64
    began = time.monotonic()
    broker = Broker()
    try:
        broker.start()
        print(f"RabbitMQ ready in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        return subprocess.run(command, env={**os.environ, "IMAGEWRIGHT_TEST_AMQP": broker.url}, check=False).returncode
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
