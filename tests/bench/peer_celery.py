"""The same queue work in Celery: a task that does nothing, acknowledged late, on a quorum queue. Runs in its venv.

`python peer_celery.py publish COUNT` publishes with confirms; `celery -A peer_celery worker ...` works.
"""

import os
import sys
import time

from celery import Celery  # pyright: ignore[reportMissingImports]
from kombu import Queue  # pyright: ignore[reportMissingImports]

app = Celery("peer", broker=os.environ["BENCH_BROKER"], include=["peer_celery"])
EVENTS = os.environ.get("BENCH_EVENTS") == "1"
QUEUE = os.environ.get("BENCH_QUEUE", "celery-bench")
app.conf.update(
    result_backend="rpc://" if EVENTS else None,
    result_persistent=True,
    task_ignore_result=not EVENTS,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_send_task_events=EVENTS,
    task_send_sent_event=EVENTS,
    task_track_started=EVENTS,
    worker_detect_quorum_queues=True,
    task_default_queue_type="quorum",
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"}, routing_key=QUEUE)],
    # Only whoever enqueues waits for confirms: a worker that did so for each result would be slower still.
    broker_transport_options={"confirm_publish": os.environ.get("BENCH_CONFIRM") == "1"},
    broker_native_delayed_delivery_queue_type="quorum",
    worker_prefetch_multiplier=4,
)


@app.task
def nothing(sent: float) -> float:
    """The time from being sent to being started."""
    return time.time() - sent


def publish(count: int) -> None:
    began = time.monotonic()
    for _ in range(count):
        nothing.delay(time.time())  # pyright: ignore[reportFunctionMemberAccess]
    print(count / (time.monotonic() - began))


if __name__ == "__main__":
    publish(int(sys.argv[2]))
