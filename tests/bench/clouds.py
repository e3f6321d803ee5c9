"""What images are sent to: null sinks over HTTP and HTTPS, held to a rate or not, and real Glances."""

import json
import sys
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.measure import cpu_seconds, tree
from harness import images
from harness.certificates import Authority
from harness.openstack import OpenStack
from harness.process import LOOPBACK, Process, free_port, is_listening, wait_for
from harness.servers import REPO

AUTH = {"username": "sink", "password": "sink", "project_name": "sink", "user_domain_name": "Default"}


def image(path: Path, size: int) -> Path:
    """A valid qcow2 of about `size` bytes, none of which compress; warm in the page cache."""
    images.big_qcow2(path, size)
    start = path.stat().st_size - size
    with path.open("r+b") as out:
        out.seek(start)
        for _ in range(size // images.MIB):
            out.write(images.noise(images.MIB))
    return path


def sparse(path: Path, size: int) -> Path:
    """The same as a hole in the file: for sizes that no page cache holds."""
    return images.big_qcow2(path, size)


class Target:
    """One or more clouds that every client under test can be pointed at by one clouds.yaml."""

    def __init__(self, names: Sequence[str], clouds_yaml: Path, ca: Path | None) -> None:
        self.names = list(names)
        self.clouds_yaml = clouds_yaml
        self.ca = ca

    def env(self) -> dict[str, str]:
        return {"OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml)}

    def cpu(self) -> float:
        """CPU seconds that the servers have used so far."""
        raise NotImplementedError

    def prepared(self, cloud: str) -> tuple[str, str]:
        """Address and token of an image that waits for its data, for a client that knows only HTTP."""
        raise NotImplementedError

    def reset(self) -> None:
        """Lets go of what was stored."""

    def close(self) -> None:
        raise NotImplementedError


class Sinks(Target):
    """Several sinks, a process each."""

    def __init__(
        self, folder: Path, count: int = 1, tls: bool = False, rate: float | None = None, served: Path | None = None
    ) -> None:
        folder.mkdir(parents=True)
        self._processes: list[Process] = []
        self.urls: list[str] = []
        authority = Authority(folder) if tls else None
        entries: dict[str, Any] = {}
        self.digest = images.sha512(served) if served else "0" * 128
        for number in range(1, count + 1):
            name, port = f"sink{number}", free_port()
            words = ["--port", port, "--digest", self.digest, *(["--served", served] if served else [])]
            if authority:
                certificate = authority.issue(name, LOOPBACK)
                words += ["--cert", certificate.cert, "--key", certificate.key]
            if rate:
                words += ["--rate", rate]
            self.urls.append(f"http{'s' if tls else ''}://{LOOPBACK}:{port}")
            auth = {"auth_url": f"{self.urls[-1]}/v3", "project_domain_name": "Default", **AUTH}
            cacert = {"cacert": str(authority.ca)} if authority else {}
            entries[name] = {"region_name": "sink", "identity_api_version": 3, "auth": auth, **cacert}
            command = [sys.executable, "-m", "bench.sink", *map(str, words)]
            process = Process(command, folder / f"{name}.log", env={"PYTHONPATH": str(REPO / "tests")})
            self._processes.append(process)
            wait_for(f"{name} listens", lambda port=port: is_listening(port), 20)
        clouds_yaml = folder / "clouds.yaml"
        clouds_yaml.write_text(yaml.safe_dump({"clouds": entries}))
        super().__init__(list(entries), clouds_yaml, authority.ca if authority else None)

    def cpu(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self._processes)

    def prepared(self, cloud: str) -> tuple[str, str]:
        # A sink stores whatever it is sent, under any id.
        return f"{self.urls[self.names.index(cloud)]}/image/v2/images/{uuid.uuid4()}/file", "any"

    def close(self) -> None:
        for process in self._processes:
            process.kill9()


class Glances(Target):
    """Real Glances with their file stores."""

    def __init__(self, stack: OpenStack) -> None:
        super().__init__([cloud.name for cloud in stack.clouds], stack.clouds_yaml, None)
        self.stack = stack
        self._connections = {name: stack.connect(name) for name in self.names}

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) for cloud in self.stack.clouds for pid in tree(cloud.pid))

    def prepared(self, cloud: str) -> tuple[str, str]:
        connection = self._connections[cloud]
        url, token = self.stack.cloud(cloud).url, str(connection.auth_token)
        body = {"name": "curl", "disk_format": "qcow2", "container_format": "bare"}
        headers = {"X-Auth-Token": token, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v2/images", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return f"{url}/v2/images/{json.load(answer)['id']}/file", token

    def reset(self) -> None:
        for connection in self._connections.values():
            for one in list(connection.image.images()):
                connection.image.delete_image(one.id)

    def close(self) -> None:
        self.stack.stop()
