"""Enqueue one upload: enqueue.py AMQP_URL NAMESPACE NAME ARCH CLOUD FILE. Needs pika; prints the job id."""

import json
import sys
import uuid
from datetime import UTC, datetime

import pika

url, namespace, name, arch, cloud, file = sys.argv[1:]
job = {
    "version": 1,
    "id": str(uuid.uuid4()),
    "asked_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    "spec": {
        "kind": "upload",
        "name": name,
        "arch": arch,
        "cloud": cloud,
        "source": {"file": file},
    },
}
properties = pika.BasicProperties(
    message_id=job["id"], content_type="application/json", delivery_mode=2
)
with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # from now on a publish that the broker does not confirm raises an error
    channel.basic_publish(
        f"{namespace}.jobs",
        f"upload.{arch}",
        json.dumps(job).encode(),
        properties,
        mandatory=True,
    )
print(job["id"])
