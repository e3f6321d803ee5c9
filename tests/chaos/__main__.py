"""`python -m chaos` (tox -e chaos): a chaos run of full size on servers of its own."""

import argparse
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

from chaos import build
from chaos.plan import SHORT, Sizes
from chaos.run import Chaos
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.rabbitmq import Broker
from harness.servers import REPO

PAGE = REPO / "docs" / "chaos.md"


def options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tox -e chaos --", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run; new each time by default")
    parser.add_argument("--mixed", action="store_true", help="every second worker is of a later version")
    parser.add_argument("--short", action="store_true", help="the sizes of the integration suite")
    parser.add_argument("--write-docs", action="store_true", help=f"put the figures into {PAGE.relative_to(REPO)}")
    for size in fields(Sizes):
        kind = float if size.name == "deadline" else int
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=kind, help=f"{size.default} by default")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    asked = options(words)
    seed: int = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1 << 32)
    basis = SHORT if asked.short else Sizes()
    given = {size.name: getattr(asked, size.name) for size in fields(Sizes)}
    sizes = Sizes(**{name: getattr(basis, name) if value is None else value for name, value in given.items()})
    print(f"seed {seed}: {sizes}", flush=True)
    later = build.later_worker() if asked.mixed else None
    stack, broker = OpenStack(3), Broker(3)
    with tempfile.TemporaryDirectory(prefix="imagewright-chaos-") as folder, ThreadPoolExecutor() as pool:
        files = FileServer(Path(folder))
        try:
            for started in [pool.submit(stack.start), pool.submit(broker.start)]:
                started.result()
            report = Chaos(stack, broker, files, Path(folder), seed, sizes, later).run()
        except AssertionError as error:
            print(f"FAILED: {error}\nrepeat with: tests/tox -e chaos -- --seed {seed}", file=sys.stderr)
            return 1
        finally:
            files.stop()
            broker.stop()
            stack.stop()
    print(report.table())
    if asked.write_docs:
        report.write_into(PAGE, " ".join(["tests/tox -e chaos --", *words]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
