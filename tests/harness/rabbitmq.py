"""Private RabbitMQ nodes on loopback with the broker's default settings, from Debian's package."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.certificates import Authority, Certificate
from harness.process import (
    LOOPBACK,
    HarnessError,
    Process,
    free_port,
    is_listening,
    remove_folder,
    scratch_folder,
    wait_for,
)

# Not /usr/sbin: those are wrappers that switch to the user rabbitmq.
BIN = Path("/usr/lib/rabbitmq/bin")
MISSING = (
    f"RabbitMQ is not installed: no {BIN}/rabbitmq-server (apt-get install --no-install-recommends rabbitmq-server)"
)


@dataclass(frozen=True)
class Tls:
    """A second listener of each node, for TLS."""

    authority: Authority
    client_certificates: bool = False


class Broker:
    """A folder with a private epmd and one or more nodes; several nodes form one cluster.

    `conf` are lines of rabbitmq.conf, `advanced` is an advanced.config.
    """

    def __init__(self, nodes: int = 1, conf: str = "", advanced: str = "", tls: Tls | None = None) -> None:
        if not (BIN / "rabbitmq-server").exists():
            raise HarnessError(MISSING)
        self.folder = scratch_folder("rabbitmq")
        self.cookie = secrets.token_hex(16)
        self.epmd_port = free_port()
        self._epmd: Process | None = None
        (self.folder / "home").mkdir()
        cookie_file = self.folder / "home" / ".erlang.cookie"
        cookie_file.write_text(self.cookie)
        cookie_file.chmod(0o600)
        names = [f"{self.folder.name[-8:].replace('_', 'x')}{number}@localhost" for number in range(1, nodes + 1)]
        lines = [conf, *(_cluster_lines(names) if nodes > 1 else [])]
        self.nodes = [Node(self, name, "\n".join(lines), advanced, tls) for name in names]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def start(self) -> None:
        # The private epmd first, so that no node leaves one behind on the usual port.
        epmd = shutil.which("epmd") or "epmd"
        command = [epmd, "-port", str(self.epmd_port), "-address", LOOPBACK]
        self._epmd = Process(command, self.folder / "epmd.log")
        wait_for("epmd listens", lambda: is_listening(self.epmd_port), 15)
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()

    def stop(self) -> None:
        for node in self.nodes:
            node.kill9()
        if self._epmd is not None:
            self._epmd.kill9()
        remove_folder(self.folder)


def _cluster_lines(names: Sequence[str]) -> list[str]:
    return [
        "cluster_formation.peer_discovery_backend = classic_config",
        *(f"cluster_formation.classic_config.nodes.{number} = {name}" for number, name in enumerate(names, 1)),
        "cluster_formation.randomized_startup_delay_range.min = 0",
        "cluster_formation.randomized_startup_delay_range.max = 1",
        "cluster_partition_handling = pause_minority",
    ]


class Node:
    """One RabbitMQ; its port stays the same over restarts."""

    def __init__(self, broker: Broker, name: str, conf: str, advanced: str, tls: Tls | None) -> None:
        self.name = name
        self.port = free_port()
        self.tls_port = free_port() if tls else 0
        self.folder = broker.folder / name
        self.folder.mkdir()
        self._process: Process | None = None
        self._env = self._environment(broker, free_port())
        secure = "\n".join(self._tls_lines(tls)) if tls else ""
        (self.folder / "rabbitmq.conf").write_text(f"loopback_users.guest = true\n{conf}\n{secure}\n")
        if advanced:
            (self.folder / "advanced.config").write_text(advanced)
        (self.folder / "env.conf").touch()
        (self.folder / "enabled_plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}"

    def _environment(self, broker: Broker, dist_port: int) -> dict[str, str]:
        folder = self.folder
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": str(broker.folder / "home"),
            "ERL_EPMD_PORT": str(broker.epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "gen"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # The start script then execs the VM, so that a signal hits the VM itself.
            "RABBITMQ_ALLOW_INPUT": "1",
        }

    def _tls_lines(self, tls: Tls) -> list[str]:
        authority = self.folder / "ca.pem"
        authority.write_bytes(tls.authority.ca.read_bytes())
        self._show(tls.authority.issue(self.name.partition("@")[0], LOOPBACK))
        strict = "true" if tls.client_certificates else "false"
        return [
            f"listeners.ssl.1 = {LOOPBACK}:{self.tls_port}",
            f"ssl_options.cacertfile = {authority}",
            f"ssl_options.certfile = {self.folder / 'server.pem'}",
            f"ssl_options.keyfile = {self.folder / 'server.key'}",
            f"ssl_options.verify = {'verify_peer' if tls.client_certificates else 'verify_none'}",
            f"ssl_options.fail_if_no_peer_cert = {strict}",
        ]

    def _show(self, certificate: Certificate) -> None:
        (self.folder / "server.pem").write_bytes(certificate.cert.read_bytes())
        (self.folder / "server.key").write_bytes(certificate.key.read_bytes())

    def show(self, certificate: Certificate) -> None:
        """Another server certificate from now on."""
        self._show(certificate)
        self.ctl("eval", "ssl:clear_pem_cache().")

    def launch(self) -> None:
        self._process = Process([BIN / "rabbitmq-server", "-noinput"], self.folder / "output", env=self._env)

    def wait_ready(self, seconds: float = 180.0) -> None:
        """The AMQP port opens last, so an open port means ready."""

        def ready() -> bool:
            if self._process is None or not self._process.is_running():
                raise RuntimeError(
                    f"{self.name} ended while starting:\n{self._process.tail() if self._process else ''}"
                )
            return is_listening(self.port)

        wait_for(f"{self.name} listens on {self.port}", ready, seconds)

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def settle(self) -> None:
        """Writes down which quorum queues there are, which RabbitMQ 3.10 itself does up to 500 ms late.

        A queue whose declaration is younger than that when the node is killed never works again.
        """
        self.ctl("eval", "ok = dets:sync(ra_directory_reverse).")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(30)

    def kill9(self) -> None:
        if self._process is not None:
            self._process.kill9()

    def ctl(self, *words: str) -> str:
        done = subprocess.run(
            [str(BIN / "rabbitmqctl"), *words], env=self._env, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise HarnessError(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def table(self, what: str, columns: Sequence[str], vhost: str = "/") -> list[dict[str, Any]]:
        """`rabbitmqctl list_...` with these columns."""
        listed = self.ctl("-q", f"list_{what}", "-p", vhost, *columns, "--formatter", "json")
        return json.loads(listed)

    def log(self) -> str:
        return (self.folder / "log" / f"{self.name}.log").read_text(errors="replace")
