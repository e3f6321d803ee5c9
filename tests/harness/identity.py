"""Administration of the test Keystone by plain Identity v3 calls."""

import time
from typing import Any

import requests

from harness.config import PASSWORD, PROJECTS

INTERFACES = ("public", "internal", "admin")


class Identity:
    """A session of the bootstrap admin."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        answer = self._first_answer(self._login("admin", PASSWORD, scope))
        self._session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]

    @staticmethod
    def _login(user: str, password: str, scope: dict[str, Any]) -> dict[str, Any]:
        who = {"user": {"name": user, "password": password, "domain": {"id": "default"}}}
        return {"auth": {"identity": {"methods": ["password"], "password": who}, "scope": scope}}

    def _first_answer(self, body: dict[str, Any]) -> requests.Response:
        """uWSGI listens before the application has loaded; the first answer may take its time."""
        end = time.monotonic() + 60
        while True:
            try:
                answer = self._session.post(f"{self.url}/auth/tokens", json=body, timeout=60)
                answer.raise_for_status()
            except requests.ConnectionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return answer

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._session.request(method, f"{self.url}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def create(self, kind: str, **fields: Any) -> str:
        """POST /<kind>s, and the new id."""
        return self.call("POST", f"{kind}s", {kind: fields})[kind]["id"]

    def role_id(self, name: str) -> str:
        return self.call("GET", f"roles?name={name}")["roles"][0]["id"]

    def project_id(self, name: str) -> str:
        return self.call("GET", f"projects?name={name}")["projects"][0]["id"]

    def add_project(self, project: str, user: str) -> None:
        """A project with one user of the plain role `member`."""
        project_id = self.create("project", name=project, domain_id="default")
        user_id = self.create("user", name=user, password=PASSWORD, domain_id="default")
        self.call("PUT", f"projects/{project_id}/users/{user_id}/roles/{self.role_id('member')}")

    def fill(self, clouds: int) -> None:
        """Regions, the image service with placeholder endpoints (written anew at each start), projects and users."""
        identity = self.call("GET", "services?type=identity")["services"][0]["id"]
        image = self.create("service", type="image", name="glance")
        for number in range(1, clouds + 1):
            region = f"cloud{number}"
            if number > 1:
                self.create("region", id=region)
            for interface in INTERFACES:
                where: dict[str, Any] = {"interface": interface, "region_id": region}
                if number > 1:
                    self.create("endpoint", service_id=identity, url=self.url, **where)
                self.create("endpoint", service_id=image, url="http://127.0.0.1:9", **where)
        for project, user in PROJECTS.items():
            self.add_project(project, user)
