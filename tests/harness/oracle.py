"""What the suites ask the clouds by openstacksdk, and the images that other people put there."""

from pathlib import Path
from typing import Any

from openstack.connection import Connection

STAMPS = ("imagewright_job", "imagewright_kind", "imagewright_asked_at", "imagewright_version", "imagewright_namespace")


class Images:
    """Glance v2 documents of one cloud as one project sees them, as plain dictionaries."""

    def __init__(self, connection: Connection) -> None:
        self._glance = connection.image
        self.project_id = str(connection.current_project_id)

    def find(self, **query: str) -> list[dict[str, Any]]:
        """All pages; the query goes to Glance as it is (name=, status=, visibility=...)."""
        found: list[dict[str, Any]] = []
        path: str | None = "/images"
        params: dict[str, str] | None = {"limit": "100", **query}
        while path:
            answer = self._glance.get(path, params=params)
            answer.raise_for_status()
            document = answer.json()
            found += document["images"]
            path, params = document.get("next", "").removeprefix("/v2") or None, None
        return found

    def named(self, name: str) -> list[dict[str, Any]]:
        """Every own image of that name in any status, oldest request first where stamped."""
        images = [one for one in self.find(name=name) if one["owner"] == self.project_id]
        return sorted(images, key=lambda one: (one.get("imagewright_asked_at", one["created_at"]), one["id"]))

    def active(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.named(name) if one["status"] == "active"]

    def of_job(self, job: str) -> list[dict[str, Any]]:
        return self.find(imagewright_job=job)

    def get(self, image_id: str) -> dict[str, Any] | None:
        answer = self._glance.get(f"/images/{image_id}")
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()

    def create(self, name: str, **fields: Any) -> dict[str, Any]:
        """An image record without data: status `queued`."""
        body = {"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "private", **fields}
        answer = self._glance.post("/images", json=body)
        answer.raise_for_status()
        return answer.json()

    def put(self, image_id: str, data: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        self._glance.put(f"/images/{image_id}/file", data=data, headers=headers).raise_for_status()

    def add(self, name: str, data: bytes = b"some disk", **fields: Any) -> dict[str, Any]:
        """An active image, as somebody else's tool would make it."""
        made = self.create(name, **fields)
        self.put(made["id"], data)
        image = self.get(made["id"])
        assert image is not None
        return image

    def add_file(self, name: str, path: Path, **fields: Any) -> dict[str, Any]:
        return self.add(name, path.read_bytes(), **fields)

    def change(self, image_id: str, **fields: Any) -> None:
        current = self.get(image_id) or {}
        patch = [
            {"op": "replace" if key in current else "add", "path": f"/{key}", "value": value}
            for key, value in fields.items()
        ]
        headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        self._glance.patch(f"/images/{image_id}", json=patch, headers=headers).raise_for_status()

    def share(self, image_id: str, project_id: str) -> None:
        self._glance.post(f"/images/{image_id}/members", json={"member": project_id}).raise_for_status()

    def accept(self, image_id: str) -> None:
        path = f"/images/{image_id}/members/{self.project_id}"
        self._glance.put(path, json={"status": "accepted"}).raise_for_status()

    def download(self, image_id: str) -> bytes:
        answer = self._glance.get(f"/images/{image_id}/file")
        answer.raise_for_status()
        return answer.content

    def deactivate(self, image_id: str) -> None:
        self._glance.post(f"/images/{image_id}/actions/deactivate").raise_for_status()

    def delete(self, image_id: str) -> None:
        self._glance.delete(f"/images/{image_id}").raise_for_status()
