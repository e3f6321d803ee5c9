"""A whole OpenStack in a network namespace: Keystone, Placement, two Glances (regions), Neutron, Nova with real guests.
No packet of a guest leaves the machine."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openstack
import yaml
from openstack.connection import Connection

from harness.process import Process, is_listening, wait_for
from stack import config, guest_image

NAMESPACE = "imagewright-test"
ADDRESS = "10.20.0.1"  # ours, on the network of the guests
REGIONS = {"build": "RegionOne", "edge": "RegionTwo"}
FLAVOR, NETWORK, BASE = "m1.build", "provider", "base"
_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x00020000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _run(*command: str | Path, check: bool = True, text: str | None = None) -> str:
    words = [str(word) for word in command]
    env = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, input=text, env=env)
    assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stdout[-1000:]}{done.stderr[-3000:]}"
    return done.stdout


def enter_namespace() -> None:
    """This process, with all that it starts from now on, is in a namespace with one network for guests."""
    _run("ip", "netns", "del", NAMESPACE, check=False)
    _run("ip", "netns", "add", NAMESPACE)
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{NAMESPACE}").open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
    # Neutron's agent reads its bridges in /sys, which shows the namespace that it was mounted in.
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "cannot leave the mounts of the machine")
    _run("mount", "--make-rslave", "/")
    _run("umount", "-l", "/sys")
    _run("mount", "-t", "sysfs", "sysfs", "/sys")
    # libvirt knows no guests but those of this run, and this machine's own knows none of them.
    for path in ("/etc/libvirt", "/var/lib/libvirt", "/run/libvirt"):
        Path(path).mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", path)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "host0", "type", "veth", "peer", "name", config.BRIDGED)
    _run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "host0")
    for name in ("host0", config.BRIDGED):
        _run("ip", "link", "set", name, "up")
    _run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1", check=False)


class Lab:
    """One OpenStack; `start` takes some two minutes, once its base image is made."""

    def __init__(self, folder: Path, cache: Path) -> None:
        """The base image is kept in `cache`."""
        self.folder = folder
        self.image = cache / "guest.qcow2"
        self.etc, self.state, self.logs = (folder / name for name in ("etc", "state", "log"))
        self._processes: list[Process] = []
        for path in ("fernet", "credential"):
            (self.state / "keystone" / path).mkdir(parents=True, mode=0o700)
        for path in ("glance/images", "glance2/images", "nova/instances", "neutron", "rabbit", "mysql"):
            (self.state / path).mkdir(parents=True)
        self.logs.mkdir()

    def prepare(self) -> None:
        """What needs the network of the machine."""
        if not self.image.exists():
            guest_image.build(self.image)

    def start(self) -> None:
        config.write(self.etc, self.state)
        self._start_base()
        self._create_databases()
        self._start_services()
        self._seed()

    def stop(self) -> None:
        for guest in Path("/run/libvirt/qemu").glob("*.pid"):
            _run("kill", "-9", guest.read_text().strip(), check=False)
        for process in reversed(self._processes):
            process.kill9()
        _run("ip", "netns", "del", NAMESPACE, check=False)

    def _serve(self, name: str, *command: str | Path, **env: str | Path) -> None:
        clean = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **{key: str(value) for key, value in env.items()}}
        self._processes.append(Process(list(command), self.logs / f"{name}.log", env=clean))

    def _await(self, ports: Iterable[int], seconds: float = 120.0) -> None:
        for port in ports:
            wait_for(f"port {port} answers", lambda port=port: is_listening(port), seconds, every=0.2)

    def _start_base(self) -> None:
        mysql, socket = self.state / "mysql", self.folder / "mysql.sock"
        _run(
            "mariadb-install-db",
            "--user=root",
            f"--datadir={mysql}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        fast = ["--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--max-connections=500"]
        where = [
            f"--datadir={mysql}",
            f"--socket={socket}",
            "--bind-address=127.0.0.1",
            f"--pid-file={self.folder}/mysql.pid",
        ]
        self._serve("mariadb", "mariadbd", "--no-defaults", "--user=root", *where, *fast)
        rabbit = self.state / "rabbit"
        self._serve("epmd", "epmd", "-address", "127.0.0.1")
        self._serve(
            "rabbitmq",
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            HOME=rabbit,
            RABBITMQ_NODENAME="imagewright-stack@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_MNESIA_BASE=rabbit / "mnesia",
            RABBITMQ_LOG_BASE=self.logs,
            RABBITMQ_LOGS="-",
            RABBITMQ_ENABLED_PLUGINS_FILE=rabbit / "enabled",
            RABBITMQ_CONFIG_FILE=rabbit / "none",
        )
        self._await([3306, 5672])

    def _create_databases(self) -> None:
        sql = ""
        for name in ("keystone", "glance", "glance2", "placement", "nova", "nova_api", "nova_cell0", "neutron"):
            user = "nova" if name == "nova_cell0" else name
            grants = [
                f"GRANT ALL ON {name}.* TO '{user}'@'{host}' IDENTIFIED BY '{config.PASSWORD}';"
                for host in ("127.0.0.1", "localhost")
            ]
            sql += f"CREATE DATABASE {name} CHARACTER SET utf8; {' '.join(grants)}\n"
        _run("mariadb", "-uroot", "-S", self.folder / "mysql.sock", text=sql)
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(lambda work: work(), (self._init_identity, self._init_images_and_network, self._init_compute))
            )

    def _manage(self, program: str, conf: str, *words: str | Path) -> str:
        return _run(program, "--config-file", self.etc / conf, *words)

    def _init_identity(self) -> None:
        self._manage("keystone-manage", "keystone.conf", "db_sync")
        for what in ("fernet_setup", "credential_setup"):
            self._manage(
                "keystone-manage", "keystone.conf", what, "--keystone-user", "root", "--keystone-group", "root"
            )
        urls = [
            word for kind in ("admin", "internal", "public") for word in (f"--bootstrap-{kind}-url", config.KEYSTONE)
        ]
        password = ["--bootstrap-password", config.PASSWORD, "--bootstrap-region-id", "RegionOne"]
        self._manage("keystone-manage", "keystone.conf", "bootstrap", *password, *urls)
        self._manage("placement-manage", "placement.conf", "db", "sync")

    def _init_images_and_network(self) -> None:
        for conf in ("glance.conf", "glance2.conf"):
            self._manage("glance-manage", conf, "db_sync")
        self._manage("neutron-db-manage", "neutron.conf", "--config-file", self.etc / "ml2.ini", "upgrade", "heads")

    def _init_compute(self) -> None:
        self._manage("nova-manage", "nova.conf", "api_db", "sync")
        cell0 = config.database("nova_cell0", "nova")
        self._manage("nova-manage", "nova.conf", "cell_v2", "map_cell0", "--database_connection", cell0)
        self._manage("nova-manage", "nova.conf", "cell_v2", "create_cell", "--name=cell1")
        self._manage("nova-manage", "nova.conf", "db", "sync")

    def _uwsgi(self, name: str, port: int, script: str, **env: str | Path) -> None:
        many = ["--master", "--processes", "2", "--threads", "2", "--lazy-apps", "--enable-threads", "--die-on-term"]
        where = ["--http-socket", f"127.0.0.1:{port}", "--wsgi-file", script, "--buffer-size", "65535"]
        self._serve(name, "uwsgi_python3", *where, *many, "--add-header", "Connection: close", **env)

    def _start_services(self) -> None:
        etc = self.etc
        self._uwsgi("keystone", 5000, "/usr/bin/keystone-wsgi-public", OS_KEYSTONE_CONFIG_DIR=etc)
        self._await([5000])
        self._register()
        self._uwsgi("placement", 8778, "/usr/bin/placement-api", OS_PLACEMENT_CONFIG_DIR=etc)
        for name in ("glance", "glance2"):
            self._serve(name, "glance-api", "--config-file", etc / f"{name}.conf")
        neutron = ["--config-file", etc / "neutron.conf", "--config-file", etc / "ml2.ini"]
        self._serve("neutron-server", "neutron-server", *neutron)
        for name in ("nova-conductor", "nova-api", "nova-scheduler"):
            self._serve(name, name, "--config-file", etc / "nova.conf")
        self._serve("libvirtd", "libvirtd", "-f", etc / "libvirtd.conf")
        self._serve("linuxbridge", "neutron-linuxbridge-agent", *neutron, "--config-file", etc / "linuxbridge.ini")
        self._await([8778, 9292, 9293, 9696, 8774])
        self._serve("nova-compute", "nova-compute", "--config-file", etc / "nova.conf")
        cloud = self.connect("build")
        wait_for(
            "nova-compute is up",
            lambda: any(one.state == "up" for one in cloud.compute.services(binary="nova-compute")),
            120,
            1,
        )
        discover = ("cell_v2", "discover_hosts", "--verbose")
        wait_for("the host is mapped", lambda: "mapping" in self._manage("nova-manage", "nova.conf", *discover), 60, 1)
        wait_for("the bridge agent is alive", lambda: any(one.is_alive for one in cloud.network.agents()), 60, 1)

    def _login(self, region: str) -> dict[str, Any]:
        user = {"username": "admin", "password": config.PASSWORD, "project_name": "admin"}
        domains = {"user_domain_name": "Default", "project_domain_name": "Default"}
        return {"auth": {"auth_url": config.KEYSTONE, **user, **domains}, "region_name": region}

    def connect(self, cloud: str) -> Connection:
        """The oracle's connection."""
        login = self._login(REGIONS[cloud])
        return openstack.connect(load_yaml_config=False, load_envvars=False, **login)

    def write_clouds(self, path: Path) -> Path:
        path.write_text(yaml.safe_dump({"clouds": {name: self._login(region) for name, region in REGIONS.items()}}))
        return path

    def _register(self) -> None:
        cloud = self.connect("build")
        identity: Any = cloud.identity
        service = cloud.create_project(name="service", domain_id="default")
        for user in ("glance", "placement", "nova", "neutron"):
            made = cloud.create_user(name=user, password=config.PASSWORD, domain_id="default")
            cloud.grant_role("admin", user=made.id, project=service.id)
        identity.create_region(id="RegionTwo")
        for name, kind, url in (
            ("glance", "image", "http://127.0.0.1:9292"),
            ("placement", "placement", "http://127.0.0.1:8778"),
            ("nova", "compute", "http://127.0.0.1:8774/v2.1"),
            ("neutron", "network", "http://127.0.0.1:9696"),
        ):
            made = cloud.create_service(name=name, type=kind)
            places = {"RegionOne": url} | ({"RegionTwo": "http://127.0.0.1:9293"} if kind == "image" else {})
            for region, address in places.items():
                identity.create_endpoint(service_id=made.id, interface="public", url=address, region_id=region)
                identity.create_endpoint(service_id=made.id, interface="internal", url=address, region_id=region)

    def _seed(self) -> None:
        cloud: Any = self.connect("build")
        hardware = {
            "hw_disk_bus": "virtio",
            "hw_vif_model": "virtio",
            "hw_rng_model": "virtio",
            "architecture": "x86_64",
        }
        cloud.create_image(
            BASE, filename=str(self.image), disk_format="qcow2", container_format="bare", wait=True, **hardware
        )
        flavor = cloud.create_flavor(FLAVOR, ram=1024, vcpus=2, disk=4)
        cloud.compute.create_flavor_extra_specs(flavor, {"hw_rng:allowed": "True"})
        network = cloud.create_network(
            NETWORK, shared=True, provider={"network_type": "flat", "physical_network": "physnet1"}
        )
        pool = [{"start": "10.20.0.100", "end": "10.20.0.200"}]
        cloud.create_subnet(
            network.id, cidr="10.20.0.0/24", enable_dhcp=False, disable_gateway_ip=True, allocation_pools=pool
        )


def is_possible() -> str:
    """Why an OpenStack cannot be started here; empty if it can."""
    if os.geteuid() != 0:
        return "the OpenStack under test needs root"
    missing = [
        name
        for name in ("nova-compute", "mmdebstrap", "qemu-system-x86_64", "ssh")
        if shutil.which(name, path=_PATH) is None
    ]
    return f"missing: {', '.join(missing)}; `python -m stack.packages` installs them" if missing else ""
