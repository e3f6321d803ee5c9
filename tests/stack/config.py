"""The configuration of every service: all on loopback of the namespace, the guests on one flat bridge."""

from collections.abc import Mapping
from pathlib import Path

PASSWORD = "secret"
KEYSTONE = "http://127.0.0.1:5000/v3"
QUEUE = "rabbit://guest:guest@127.0.0.1:5672/"
HOST = "node1"
BRIDGED = "prov0"  # enslaved by Neutron to the bridge of the guests

Sections = Mapping[str, Mapping[str, object]]


def _login(user: str) -> dict[str, object]:
    return {
        "auth_url": KEYSTONE,
        "auth_type": "password",
        "project_domain_name": "Default",
        "user_domain_name": "Default",
        "project_name": "service",
        "region_name": "RegionOne",
        "username": user,
        "password": PASSWORD,
    }


def database(name: str, user: str = "") -> str:
    return f"mysql+pymysql://{user or name}:{PASSWORD}@127.0.0.1/{name}?charset=utf8"


def _glance(state: Path, name: str, port: int) -> Sections:
    return {
        "DEFAULT": {"bind_host": "127.0.0.1", "bind_port": port, "workers": 1, "use_stderr": True},
        "database": {"connection": database(name)},
        "glance_store": {
            "stores": "file",
            "default_store": "file",
            "filesystem_store_datadir": state / name / "images",
        },
        "paste_deploy": {"flavor": "keystone", "config_file": "/etc/glance/glance-api-paste.ini"},
        "oslo_concurrency": {"lock_path": state / name / "lock"},
        "keystone_authtoken": _login("glance"),
    }


def _nova(state: Path) -> Sections:
    return {
        "DEFAULT": {
            "use_stderr": True,
            "state_path": state / "nova",
            "my_ip": "127.0.0.1",
            "host": HOST,
            "transport_url": QUEUE,
            "enabled_apis": "osapi_compute",
            "osapi_compute_listen": "127.0.0.1",
            "osapi_compute_workers": 1,
            "compute_driver": "libvirt.LibvirtDriver",
            "mkisofs_cmd": "genisoimage",
            "reserved_host_memory_mb": 512,
            "cpu_allocation_ratio": 16.0,
            "ram_allocation_ratio": 1.5,
            "vif_plugging_timeout": 120,
        },
        "api": {"auth_strategy": "keystone"},
        "api_database": {"connection": database("nova_api")},
        "database": {"connection": database("nova")},
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1},
        "glance": {"api_servers": "http://127.0.0.1:9292"},
        # Emulated: /dev/kvm of a test machine may be one that runs no ordinary guest.
        "libvirt": {"virt_type": "qemu", "cpu_mode": "none", "disk_cachemodes": "file=unsafe", "num_pcie_ports": 0},
        "vnc": {"enabled": False},
        "spice": {"enabled": False},
        "oslo_concurrency": {"lock_path": state / "nova/lock"},
        "keystone_authtoken": _login("nova"),
        "placement": _login("placement"),
        "neutron": _login("neutron"),
    }


def _neutron(state: Path) -> Sections:
    return {
        "DEFAULT": {
            "use_stderr": True,
            "state_path": state / "neutron",
            "host": HOST,
            "bind_host": "127.0.0.1",
            "core_plugin": "ml2",
            "service_plugins": "",
            "auth_strategy": "keystone",
            "transport_url": QUEUE,
            "api_workers": 1,
            "rpc_workers": 1,
            "rpc_state_report_workers": 0,
            "notify_nova_on_port_status_changes": True,
            "notify_nova_on_port_data_changes": True,
        },
        "experimental": {"linuxbridge": True},
        "database": {"connection": database("neutron")},
        "agent": {"root_helper": "sudo /usr/bin/neutron-rootwrap /etc/neutron/rootwrap.conf"},
        "oslo_concurrency": {"lock_path": state / "neutron/lock"},
        "keystone_authtoken": _login("neutron"),
        "nova": _login("nova"),
    }


def _files(state: Path) -> dict[str, Sections]:
    groups = {"enable_security_group": True, "enable_ipset": True}
    return {
        "keystone.conf": {
            "DEFAULT": {"use_stderr": True},
            "database": {"connection": database("keystone")},
            "token": {"provider": "fernet"},
            "fernet_tokens": {"key_repository": state / "keystone/fernet"},
            "credential": {"key_repository": state / "keystone/credential"},
        },
        "glance.conf": _glance(state, "glance", 9292),
        "glance2.conf": _glance(state, "glance2", 9293),
        "placement.conf": {
            "placement_database": {"connection": database("placement")},
            "api": {"auth_strategy": "keystone"},
            "keystone_authtoken": _login("placement"),
        },
        "nova.conf": _nova(state),
        "neutron.conf": _neutron(state),
        "ml2.ini": {
            "ml2": {
                "type_drivers": "flat",
                "tenant_network_types": "",
                "mechanism_drivers": "linuxbridge",
                "extension_drivers": "port_security",
            },
            "ml2_type_flat": {"flat_networks": "physnet1"},
            "securitygroup": groups,
        },
        "linuxbridge.ini": {
            "linux_bridge": {"physical_interface_mappings": f"physnet1:{BRIDGED}"},
            "vxlan": {"enable_vxlan": False},
            "securitygroup": {**groups, "firewall_driver": "iptables"},
        },
    }


_LIBVIRTD = 'listen_tls = 0\nlisten_tcp = 0\nauth_unix_ro = "none"\nauth_unix_rw = "none"\nunix_sock_group = "root"\n'
# No cgroups, no security driver, no log daemon: the namespace has none of them.
_QEMU = """user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
"""


def write(folder: Path, state: Path) -> None:
    """Every file; QEMU's is where libvirt looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sections in _files(state).items():
        lines = [
            line
            for section, values in sections.items()
            for line in (f"[{section}]", *(f"{key} = {value}" for key, value in values.items()), "")
        ]
        (folder / name).write_text("\n".join(lines))
    (folder / "libvirtd.conf").write_text(_LIBVIRTD)
    Path("/etc/libvirt").mkdir(exist_ok=True)
    Path("/etc/libvirt/qemu.conf").write_text(_QEMU)
