"""Ask for a copy: enqueue_copy.py AMQP_URL NAMESPACE NAME ARCH CLOUD:IMAGE CLOUD. Needs pika; prints the job id."""

import json
import sys
import uuid
from datetime import UTC, datetime

import pika

url, namespace, name, arch, origin, cloud = sys.argv[1:]
source = dict(zip(("cloud", "id"), origin.split(":"), strict=True))
spec = {"kind": "upload", "name": name, "arch": arch, "cloud": cloud, "source": {"image": source}}
job = {
    "version": 1,
    "id": str(uuid.uuid4()),
    "asked_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    "spec": spec,
}
properties = pika.BasicProperties(message_id=job["id"], content_type="application/json", delivery_mode=2)
with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(f"{namespace}.jobs", f"upload.{arch}", json.dumps(job).encode(), properties, mandatory=True)
print(job["id"])
