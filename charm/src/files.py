"""What is written on a unit: text from options, nothing else. Paths are those of /etc/imagewright."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import yaml

from clouds import BUILD
from clouds import render as clouds_yaml
from config import LEVELS, Config, address

FOLDER = "/etc/imagewright"
STATE = "/var/lib/imagewright"
CA_FILE = f"{FOLDER}/broker-ca.pem"
LISTEN = "127.0.0.1:9469"
NAMESPACES = "embedded-namespaces"
"""Every namespace that the embedded queue had, one a line: its jobs are found by nothing else."""
MIRROR = "cloud-images.ubuntu.com"
RUNNER_RELEASES = "api.github.com"
TEMPLATES = Path(__file__).parent / "templates"
UNITS = [
    "imagewright-worker.service",
    "imagewright-drain.service",
    "imagewright-schedule.service",
    "imagewright-schedule.timer",
    "imagewright-look.service",
    "imagewright-look.timer",
    "imagewright-published.path",
    "imagewright-published.service",
]


@dataclass(frozen=True)
class Plan:
    """All that a unit's files are made from. Holds secrets: never shown."""

    config: Config
    unit: str
    namespace: str
    names: dict[str, str]
    clouds: dict[str, dict[str, object]]
    queue: str
    ca: str = ""
    build_key: str = ""
    script_secrets: dict[str, str] = field(default_factory=dict)
    ssh_from: list[str] = field(default_factory=list)
    proxies: dict[str, str] = field(default_factory=dict)


def render(plan: Plan, embedded_in: list[str]) -> dict[str, str]:
    """Every file beneath /etc/imagewright, by its path from there. `embedded_in`: namespaces of the embedded queue."""
    files = {
        "environment": _environment(plan),
        "queue": plan.queue + "\n",
        "clouds.yaml": clouds_yaml(plan.clouds),
        "policy.yaml": _policy(plan),
        "build-key": plan.build_key,
        "schedule": _schedule(plan),
        "look": _look(plan),
        "drain": _drain(embedded_in or [plan.namespace]),
        NAMESPACES: "".join(f"{name}\n" for name in embedded_in),
        "broker-ca.pem": plan.ca,
    }
    files.update({f"secrets/{name}": value for name, value in plan.script_secrets.items()})
    return {path: text for path, text in files.items() if text}


def units(plan: Plan) -> dict[str, str]:
    """Every systemd unit, by its name."""
    config = plan.config
    words = {
        "unit": plan.unit,
        "level": " -v" * LEVELS[config.log_level] + " -q" * -LEVELS[config.log_level],
        "hours": _hours(config.build_interval),
        "state": STATE,
    }
    return {name: Template((TEMPLATES / name).read_text()).substitute(words) for name in UNITS}


def _hours(interval: int) -> str:
    """The hours of systemd's calendar; it refuses a step of 24, and a timer that is off is checked too."""
    return f"0/{interval}" if 0 < interval < 24 else "00"


def build_words(plan: Plan, base: str, force: bool = False, clouds: bool = True) -> list[str]:
    """The words after `imagewright` that ask for a build; without `clouds` it is sent nowhere."""
    config = plan.config
    words = ["build", "--name", plan.names[base], "--arch", config.architecture, "--base", base]
    words += ["--cloud", BUILD, "--keep", str(config.revision_history_limit)]
    words += ["--deadline", f"{config.job_timeout}m"]
    targets = targets_of(plan)
    if targets and clouds:
        words += ["--upload-to", ",".join(targets)]
    choices = {
        "--flavor": config.build_flavor,
        "--network": config.build_network,
        "--runner-version": config.runner_version,
        "--script-url": config.script_url,
        "--proxy": _builder_proxy(plan),
    }
    for option, value in choices.items():
        words += [option, value] if value else []
    for name in plan.script_secrets if config.script_url else ():
        words += ["--script-secret", name]
    return [*words, "--force"] if force else words


def targets_of(plan: Plan) -> list[str]:
    """The related clouds."""
    return sorted(name for name in plan.clouds if name != BUILD)


def _environment(plan: Plan) -> str:
    releases = "" if plan.config.runner_version == "none" else RUNNER_RELEASES
    hosts = [MIRROR, releases, plan.config.script_host]
    lines = {
        "IMAGEWRIGHT_QUEUE_FILE": f"{FOLDER}/queue",
        "IMAGEWRIGHT_NAMESPACE": plan.namespace,
        "IMAGEWRIGHT_POLICY": f"{FOLDER}/policy.yaml",
        "IMAGEWRIGHT_URL_HOST": ",".join(host for host in hosts if host),
        "IMAGEWRIGHT_LISTEN": LISTEN,
        "IMAGEWRIGHT_CONCURRENCY": f"upload={plan.config.worker_concurrency}",
        "IMAGEWRIGHT_CLOUD_TRANSFERS": str(max(4, plan.config.worker_concurrency // 2)),
        "IMAGEWRIGHT_BUILD_KEY_FILE": f"{FOLDER}/build-key",
        "OS_CLIENT_CONFIG_FILE": f"{FOLDER}/clouds.yaml",
        "XDG_STATE_HOME": str(Path(STATE).parent),
        **plan.proxies,
    }
    if plan.script_secrets:
        lines["IMAGEWRIGHT_SECRETS_DIR"] = f"{FOLDER}/secrets"
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _policy(plan: Plan) -> str:
    policy: dict[str, object] = {
        "adopt": sorted(plan.names.values()),
        "ssh_from": plan.ssh_from,
        "servers": [],
        "proxies": [proxy] if (proxy := _builder_proxy(plan)) else [],
    }
    if plan.script_secrets and plan.config.script_host:
        host = urlsplit(plan.config.script_url).hostname
        policy["secrets"] = {name: {"hosts": [host]} for name in sorted(plan.script_secrets)}
    return yaml.safe_dump(policy)


def _builder_proxy(plan: Plan) -> str:
    """Of builders, which are given no password for it."""
    return address(plan.proxies.get("HTTP_PROXY", ""))


def _schedule(plan: Plan) -> str:
    """A script for the timer of the leader: first the base image, so that a build never starts from an old one."""
    config = plan.config
    program = "/opt/imagewright/current/bin/imagewright --quiet"
    lines = [
        "#!/bin/sh",
        "# Written by the charm. A base that fails holds up no other. While base images are paused, nothing",
    ]
    lines += ["# is waited for.", f"{program} queues | grep -Eq '[.]pause[.]base-image +[1-9]' && exit 0", "failed=0"]
    for base in config.base_image:
        first = ["base-image", "--arch", config.architecture, "--base", base, "--cloud", BUILD]
        first += ["--wait", "--deadline", "2h"]
        lines.append(f"{program} {shlex.join(first)} && {program} {shlex.join(build_words(plan, base))} || failed=1")
    return "\n".join([*lines, "exit $failed", ""])


def _look(plan: Plan) -> str:
    """A script for the timer of every unit: writes what the clouds have, if it is something else than before."""
    words = ["/opt/imagewright/current/bin/imagewright", "--quiet", "images", "--json"]
    words += ["--cloud", ",".join(targets_of(plan) or [BUILD])]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Written by the charm. A path unit tells the charm. A cloud that is away holds up no other.",
            f"new={STATE}/images.new old={STATE}/images.json",
            f"""{shlex.join(words)} > "$new" || grep -q '"id"' "$new" || exit 0""",
            'cmp -s "$new" "$old" || mv "$new" "$old"',
            "",
        ]
    )


def _drain(namespaces: list[str]) -> str:
    """A script that works off the embedded queue. Its end is 0 only if nothing is left; a pause would never end it."""
    queue = f"--queue sqlite:{STATE}/queue.db"
    bin_folder = "/opt/imagewright/current/bin"
    return "\n".join(
        [
            "#!/bin/sh",
            "# Written by the charm. Told to stop, it waits for the worker, which is told too.",
            "trap stopped=75 TERM",
            f"for namespace in {shlex.join(namespaces)}; do",
            '    export IMAGEWRIGHT_NAMESPACE="$namespace"',
            f"    {bin_folder}/imagewright --quiet {queue} resume || exit",
            f"    {bin_folder}/imagewright-worker {queue} --listen 127.0.0.1:9470 --drain || exit",
            '    [ -z "$stopped" ] || exit "$stopped"',
            "done",
            "",
        ]
    )
