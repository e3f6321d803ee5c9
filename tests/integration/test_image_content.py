"""What goes into an image: user-data as cloud-init reads it, run in a folder with programs that only take notes."""

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.builder import CONTENT, GOLDEN, Builder, archive, golden, shown

COMBINATIONS = sorted(path.stem for path in GOLDEN.glob("*.json"))
SCRIPTS = sorted(path.name for path in CONTENT.glob("*.sh"))
MIRROR = "https://mirror.example.org/ubuntu/"

Make = Callable[..., Builder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A builder for a golden file, with a runner agent to download."""

    def made(name: str = "noble-amd64.json", **variables: str) -> Builder:
        builder = Builder(tmp_path / name, golden(name), variables)
        builder.serve_runner(archive())
        return builder

    return made


def done(builder: Builder) -> Builder:
    """Runs it, and insists that all went well."""
    said = builder.run()
    assert said.returncode == 0, said.stdout + said.stderr
    return builder


def test_every_architecture_and_release_is_there() -> None:
    arches = ("amd64", "arm64", "armhf", "ppc64le", "s390x")
    assert [f"{base}-{arch}" for base in ("focal", "jammy", "noble", "resolute") for arch in arches] == COMBINATIONS


@pytest.mark.parametrize("script", [*SCRIPTS, "provision"])
def test_bash_reads_every_script(script: str) -> None:
    subprocess.run(["bash", "-n", CONTENT / script], check=True)


def test_the_user_data_is_yaml_and_holds_one_secret_the_key_of_the_builder() -> None:
    text = (GOLDEN / "whole.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    config = golden("whole.yaml")
    assert config["runcmd"] == [["bash", "/run/imagewright-content/provision"]]
    names = [file["path"].rsplit("/", 1)[1] for file in config["write_files"]]
    assert names == ["environment", *SCRIPTS, "provision"]
    assert all(file["path"].startswith("/run/") for file in config["write_files"])
    assert all(file["permissions"] in ("0600", "0700") for file in config["write_files"])
    assert "PRIVATE KEY" in config.pop("ssh_keys")["ed25519_private"]
    assert "PRIVATE" not in shown(config)
    assert not config["ssh_pwauth"]


def test_no_script_pipes_a_download_into_a_shell() -> None:
    for script in (*SCRIPTS, "provision"):
        lines = [line for line in (CONTENT / script).read_text().splitlines() if not line.startswith("#")]
        assert not [line for line in lines if re.search(r"\|\s*(sudo\s+)?(ba|da)?sh(\s|$)", line)], script
        if script != "provision":
            assert not [line for line in lines if "curl" in line or "wget" in line], script


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_all_of_it_runs_to_the_end(make: Make, combination: str) -> None:
    base, arch = combination.split("-")
    builder = done(make(f"{combination}.json"))
    installed = " ".join(builder.calls("apt-get")).split()
    assert {"docker.io", "jq", "npm"} <= set(installed)
    assert ("cargo" in installed) == (arch != "armhf")
    assert ("dotnet-runtime-8.0" in installed) == (arch in ("s390x", "ppc64le"))
    assert ("gh" in installed) == (base != "focal")
    assert builder.calls("dpkg --add-architecture armhf") == ["dpkg --add-architecture armhf"] * (arch == "armhf")
    facts = dict(line.split("=") for line in builder.read("usr/share/imagewright/facts").splitlines())
    assert (facts["base"], facts["arch"], facts["runner_version"]) == (base, arch, "2.330.0")


def test_the_manifest_lists_what_is_installed_and_nothing_else(make: Make) -> None:
    builder = done(make())
    listed = builder.run_script(CONTENT.parent / "src" / "guest" / "manifest.sh")
    manifest = "bash amd64 5.2\njq amd64 1.7\n"
    assert builder.read("usr/share/imagewright/packages") == manifest
    assert listed.stdout == f"{hashlib.sha256(manifest.encode()).hexdigest()}\n"
    builder.fail = "dpkg-query"
    assert builder.run_script(CONTENT.parent / "src" / "guest" / "manifest.sh").stdout == ""


def test_the_runner_agent_is_unpacked_for_both_users(make: Make) -> None:
    builder = done(make())
    assert (builder.root / "home/ubuntu/actions-runner/config.sh").is_file()
    assert (builder.root / "home/runner").readlink() == Path("/home/ubuntu")
    (alias,) = builder.calls("useradd --non-unique --uid 1000")
    assert alias.endswith(" runner")
    assert "--home-dir /home/runner" in alias
    assert builder.calls("installdependencies 2.330.0")
    assert builder.calls("chown --recursive ubuntu:ubuntu")
    assert not (builder.work / "runner.tar.gz").exists()


def test_without_a_runner_agent_nothing_is_downloaded(make: Make) -> None:
    builder = done(make(RUNNER_URL="", RUNNER_VERSION=""))
    assert not builder.calls("curl")
    assert "runner_version=none" in builder.read("usr/share/imagewright/facts")


def test_an_archive_with_another_digest_is_never_unpacked(make: Make) -> None:
    builder = make(RUNNER_SHA256="0" * 64)
    said = builder.run()
    assert said.returncode == 1
    assert "another digest" in said.stderr
    assert "70-runner.sh failed" in said.stderr
    assert not (builder.root / "home/ubuntu/actions-runner").exists()
    assert not (builder.work / "runner.tar.gz").exists()
    assert not (builder.root / "usr/share/imagewright").exists()


def test_an_archive_that_is_no_runner_agent_is_an_error(make: Make) -> None:
    builder = make()
    builder.variables.pop("RUNNER_SHA256")
    builder.serve_runner(archive(config=False))
    said = builder.run()
    assert said.returncode == 1
    assert "no config.sh" in said.stderr


@pytest.mark.parametrize(
    ("failing", "script"),
    [
        ("apt-get --yes --quiet --no-install-recommends --option Dpkg::Use-Pty=0", "10-apt.sh"),
        ("usermod", "40-users.sh"),
        ("systemctl mask", "50-services.sh"),
        ("modprobe tcp_bbr", "60-kernel.sh"),
        ("sysctl", "60-kernel.sh"),
        ("curl", "70-runner.sh"),
        ("chown", "70-runner.sh"),
        ("snap install yq", "80-snaps.sh"),
    ],
)
def test_the_first_failure_ends_it_and_is_named(make: Make, failing: str, script: str) -> None:
    builder = make()
    builder.fail = failing
    said = builder.run()
    assert said.returncode == 1
    assert f"imagewright: {script} failed with exit status" in said.stderr
    begun = [line.split(": ")[1] for line in said.stdout.splitlines() if line.startswith("imagewright: ")]
    assert begun == SCRIPTS[: SCRIPTS.index(script) + 1]


def test_a_failure_in_the_middle_of_a_script_is_not_passed_over(make: Make) -> None:
    builder = make()
    path = "/run/imagewright-content/scripts/97-mine.sh"
    body = "false\necho 'went on' > \"${ROOT}/went-on\"\n"
    builder.config["write_files"].append({"path": path, "permissions": "0600", "content": body})
    said = builder.run()
    assert said.returncode == 1
    assert "97-mine.sh failed with exit status 1" in said.stderr
    assert not (builder.root / "went-on").exists()


def test_one_script_leaves_no_variable_for_the_next(make: Make) -> None:
    builder = make()
    for name, body in [("97-one.sh", "mine=1; exit 0\n"), ("98-two.sh", "[[ -z ${mine:-} && $- == *e* ]]\n")]:
        path = f"/run/imagewright-content/scripts/{name}"
        builder.config["write_files"].append({"path": path, "permissions": "0600", "content": body})
    done(builder)


def test_a_mirror_takes_the_place_of_ubuntus_servers_alone(make: Make) -> None:
    builder = done(make(APT_MIRROR=MIRROR))
    assert builder.read("etc/apt/sources.list").splitlines() == [
        f"deb {MIRROR} jammy main",
        f"deb {MIRROR} jammy-security main",
        f"deb {MIRROR} jammy main",
        "deb https://packages.example.org/ubuntu other main",
    ]
    assert f"URIs: {MIRROR}\n" in builder.read("etc/apt/sources.list.d/ubuntu.sources")


def test_a_mirror_without_a_list_to_change_is_an_error(make: Make) -> None:
    builder = make(APT_MIRROR=MIRROR)
    for name in ("sources.list", "sources.list.d/ubuntu.sources"):
        (builder.root / "etc/apt" / name).unlink()
    said = builder.run()
    assert said.returncode == 1
    assert "10-apt.sh failed" in said.stderr


def test_the_proxy_serves_the_build_and_is_not_in_the_image(make: Make) -> None:
    builder = make(PROXY="proxy.example.org:3128")
    conf = builder.root / "etc/apt/apt.conf.d/95imagewright-proxy"
    path = "/run/imagewright-content/scripts/06-look.sh"
    body = 'grep --quiet proxy.example.org:3128 "${ROOT}/etc/apt/apt.conf.d/95imagewright-proxy"\n'
    builder.config["write_files"].append({"path": path, "permissions": "0600", "content": body})
    done(builder)
    assert not conf.exists()
    assert "--proxy http://proxy.example.org:3128" in builder.calls("curl")[0]
    assert builder.calls("snap set system proxy.http=http://proxy.example.org:3128")
    assert builder.calls("snap unset system proxy.http proxy.https")
    assert "proxy.example.org" not in "".join(
        found.read_text() for found in (builder.root / "etc").rglob("*") if found.is_file()
    )


def test_a_snap_store_proxy_is_acknowledged_before_the_first_snap(make: Make) -> None:
    builder = make(SNAP_PROXY="https://snaps.example.org/")
    (builder.served / "assertions").write_text("type: store\nstore: 1a2b\nauthority-id: canonical\n")
    snaps = done(builder).calls("snap ")
    assert snaps[0].startswith("snap ack ")
    assert snaps[1] == "snap set core proxy.store=1a2b"
    assert snaps.index("snap wait system seed.loaded") < snaps.index("snap install yq --channel=latest/stable")
    assert "snap stop --disable opentelemetry-collector" in snaps
    assert snaps[-1] == "snap unset core proxy.store"


def test_users_services_and_kernel_settings_are_those_of_the_lists(make: Make) -> None:
    builder = done(make(USERS="alice bob"))
    for user in ("alice", "bob"):
        assert builder.calls(f"useradd --create-home --shell /bin/bash {user}")
    assert "NOPASSWD" in builder.read("etc/sudoers.d/90-imagewright-runner")
    assert (builder.root / "var/lib/systemd/linger/ubuntu").exists()
    # The only unit of the list that this builder has.
    assert builder.calls("systemctl mask") == ["systemctl mask apt-daily.timer"]
    settings = "net.core.default_qdisc=fq\nnet.ipv4.tcp_congestion_control=bbr\n"
    assert builder.read("etc/sysctl.d/60-imagewright.conf") == settings
    assert not list((builder.root / "var/lib/apt/lists").iterdir())
