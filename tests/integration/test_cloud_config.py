"""clouds.yaml must mean to us what it means to openstacksdk.

Each case is a home directory, a working directory and an environment. The oracle is openstacksdk itself, in a process
of its own because it looks at the environment when it is imported; it is asked for the request it would send to
Keystone, so that what is compared is what a cloud would see. Ours is the example program `cloud_config`, built by
`cargo build --examples`. The cases are in cloud_config_cases.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cloud_config_cases import CASES, ENV, cloud

REPO = Path(__file__).resolve().parents[2]
OURS = Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target") / "debug/examples/cloud_config"

ORACLE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from openstack.config import OpenStackConfig
from keystoneauth1.identity.generic.base import BaseGenericPlugin

class Asked(Exception):
    pass

class Session:
    def post(self, url, json=None, **_):
        self.url, self.body = url, json
        raise Asked

config = OpenStackConfig()
if len(sys.argv) == 1:
    print(json.dumps(sorted(config.get_cloud_names())))
    sys.exit()
region = config.get_one(sys.argv[1])
plugin = region.get_auth()
if isinstance(plugin, BaseGenericPlugin):
    plugin = plugin.create_plugin(None, (3, 0), plugin.auth_url)
session = Session()
try:
    plugin.get_auth_ref(session)
except Asked:
    pass
verify, cert = region.get_requests_verify_args()
cert, key = cert if isinstance(cert, tuple) else (cert, None)
print(json.dumps({
    "name": region.name,
    "token_url": session.url,
    "token_request": session.body,
    "region": region.get_region_name("image") or None,
    "interface": region.get_interface("image").removesuffix("URL"),
    "verify": bool(verify),
    "cacert": verify if isinstance(verify, str) else None,
    "cert": cert,
    "key": key,
    "image_endpoint": region.get_endpoint("image"),
}))
"""


def run(command: list[str], root: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a program in a case's folders and nothing of ours."""
    env = {"PATH": os.environ["PATH"], "HOME": str(root / "home"), "PYTHONWARNINGS": "ignore"}
    env |= {name: value.replace("{root}", str(root)) for name, value in environment.items()}
    return subprocess.run(command, cwd=root / "cwd", env=env, capture_output=True, text=True, timeout=60)


def lay_out(root: Path, files: dict[str, str]) -> None:
    for folder in ("home", "cwd"):
        (root / folder).mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("case", CASES)
def test_a_cloud_is_what_openstacksdk_makes_of_it(case: str, tmp_path: Path) -> None:
    files, environment, name = CASES[case]
    lay_out(tmp_path, files)
    for arguments in ([], [name]):
        oracle = run([sys.executable, "-c", ORACLE, *arguments], tmp_path, environment)
        assert oracle.returncode == 0, oracle.stderr
        ours = run([str(OURS), *arguments], tmp_path, environment)
        assert ours.returncode == 0, ours.stderr
        assert json.loads(ours.stdout) == json.loads(oracle.stdout)


# What neither can use; here we must say why, and never quote a secret.
BROKEN = {
    "unknown cloud": ({"cwd/clouds.yaml": cloud()}, {}, "other", "cwd/clouds.yaml has c"),
    "nothing at all": ({}, {}, "c", "no clouds.yaml was found"),
    "no auth_url": (
        {"cwd/clouds.yaml": "clouds: {c: {auth: {username: u, password: s3cret}}}"},
        {},
        "c",
        "auth.auth_url",
    ),
    "no password": (
        {"cwd/clouds.yaml": cloud().replace("      password: p\n", "")},
        {},
        "c",
        "auth.password is missing",
    ),
    "no domain": (
        {"cwd/clouds.yaml": cloud().replace("      project_domain_name: PD\n", "")},
        {},
        "c",
        "auth.project_domain_name is missing",
    ),
    "a password that is a boolean": (
        {"cwd/clouds.yaml": cloud().replace("password: p", "password: yes")},
        {},
        "c",
        "auth.password is read as true or false",
    ),
    "an auth_type we do not speak": (
        {"cwd/clouds.yaml": cloud("auth_type: v3oidcpassword\n")},
        {},
        "c",
        "auth_type is not supported",
    ),
    "not YAML": ({"cwd/clouds.yaml": "clouds:\n  c:\n   auth: {password: s3cret\n"}, {}, "c", "line "),
    "not a mapping": ({"cwd/clouds.yaml": "- s3cret\n"}, {}, "c", "is not a mapping"),
    "a name twice": ({"cwd/clouds.yaml": cloud().replace(" c:", " envvars:")}, ENV, "envvars", "OS_CLOUD_NAME"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_said_without_secrets(case: str, tmp_path: Path) -> None:
    files, environment, name, expected = BROKEN[case]
    lay_out(tmp_path, files)
    ours = run([str(OURS), name], tmp_path, environment)
    assert ours.returncode == 1
    assert expected in ours.stderr
    assert "s3cret" not in ours.stderr
