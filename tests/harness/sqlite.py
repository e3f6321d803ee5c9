"""Puts a message into the embedded queue's file, as a foreign AMQP client would into RabbitMQ.

The file's layout is the program's own business; of all the suites only this module knows it.
"""

import contextlib
import json
import sqlite3
import time
from pathlib import Path


def publish(path: Path, namespace: str, lane: str, body: bytes) -> None:
    try:
        job = str(json.loads(body)["id"])
    except (ValueError, LookupError, TypeError):
        job = ""
    row = (namespace, lane, job, body, time.time_ns())
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
        database.execute(
            "INSERT INTO jobs (namespace, tap, id, payload, attempt, crashes, first_at) VALUES (?, ?, ?, ?, 0, 0, ?)",
            row,
        )
