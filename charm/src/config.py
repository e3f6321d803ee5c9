"""The options of the charm, checked: every mistake names its option."""

import re
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import ops
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

ARCHES = {
    **dict.fromkeys(["amd64", "x64", "x86_64"], ("amd64", "x64")),
    **dict.fromkeys(["arm64", "aarch64"], ("arm64", "arm64")),
    "s390x": ("s390x", "s390x"),
    **dict.fromkeys(["ppc64le", "ppc64el"], ("ppc64le", "ppc64le")),
    **dict.fromkeys(["armhf", "arm", "armv7l"], ("armhf", "arm")),
}
"""What may be written, to the program's word and the runner's, which is in image names and tags."""

RELEASES = {"20.04": "focal", "22.04": "jammy", "24.04": "noble", "26.04": "resolute"}
LEVELS = {"error": -2, "warning": -1, "info": 0, "debug": 1, "trace": 2}
"""Log levels, to how often the worker is told -v, or -q if negative."""

REQUIRED = ["auth-url", "project-name", "project-domain-name", "user-name", "user-domain-name", "password-secret"]


class Config(BaseModel):
    """All options; `base_image` holds codenames, `architecture` the program's word."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    architecture: str
    base_image: list[str]
    build_interval: int = Field(ge=0, le=24)
    build_flavor: str
    build_network: str
    openstack_auth_url: str
    openstack_project_name: str
    openstack_project_domain_name: str
    openstack_user_name: str
    openstack_user_domain_name: str
    openstack_password_secret: ops.Secret | None = None
    openstack_region: str
    image_region: str
    image_name_prefix: str
    revision_history_limit: int = Field(ge=2, le=99)
    runner_version: str
    script_url: str
    script_secret_id: ops.Secret | None = None
    ssh_from: list[str]
    namespace: str
    job_timeout: int = Field(ge=10, le=10080)
    worker_concurrency: int = Field(ge=1, le=64)
    amqp_uri_secret: ops.Secret | None = None
    log_level: str

    @field_validator("architecture")
    @classmethod
    def _architecture(cls, value: str) -> str:
        if value not in ARCHES:
            raise ValueError(f"must be one of {', '.join(ARCHES)}")
        return ARCHES[value][0]

    @field_validator("base_image", mode="before")
    @classmethod
    def _bases(cls, value: str) -> list[str]:
        words = [word.strip() for word in value.split(",") if word.strip()]
        names = [RELEASES.get(word, word) for word in words]
        if not names or any(name not in RELEASES.values() for name in names):
            raise ValueError(f"must be a list of {', '.join(RELEASES.values())}")
        return list(dict.fromkeys(names))

    @field_validator("ssh_from", mode="before")
    @classmethod
    def _blocks(cls, value: str) -> list[str]:
        blocks = [word.strip() for word in value.split(",") if word.strip()]
        for block in blocks:
            if not _is_cidr(block):
                raise ValueError(
                    f"{block} is no CIDR block: write for example 10.0.8.0/24, or 10.0.8.5/32 for one address"
                )
        return blocks

    @field_validator("openstack_auth_url")
    @classmethod
    def _auth_url(cls, value: str) -> str:
        if value and not (address(value) and urlsplit(value).scheme in ("http", "https")):
            raise ValueError("must begin with https:// or http:// and a host")
        return value

    @field_validator("runner_version")
    @classmethod
    def _runner_version(cls, value: str) -> str:
        if not re.fullmatch(r"(latest|none|([0-9]{1,5}\.){2}[0-9]{1,5})?", value):
            raise ValueError("must be three numbers, as in 2.330.0, or latest, or none")
        return value

    @field_validator("script_url")
    @classmethod
    def _script_url(cls, value: str) -> str:
        if value and not (address(value) and urlsplit(value).scheme == "https" and "@" not in urlsplit(value).netloc):
            raise ValueError("must begin with https:// and a host, without a user name or password")
        return value

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str) -> str:
        if value and not fits_namespace(value):
            raise ValueError("must be small letters, digits and hyphens, at most 60")
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value not in LEVELS:
            raise ValueError(f"must be one of {', '.join(LEVELS)}")
        return value

    def missing(self) -> list[str]:
        """The options without which nothing can be built."""
        return [f"openstack-{name}" for name in REQUIRED if not getattr(self, f"openstack_{name.replace('-', '_')}")]

    @property
    def runner_arch(self) -> str:
        """The architecture as runners call it."""
        return ARCHES[self.architecture][1]

    @property
    def script_host(self) -> str:
        """Where the script comes from, with its port if one is given; empty without a script."""
        return urlsplit(self.script_url).netloc


def address(url: str) -> str:
    """HOST:PORT of an http or https address, with the usual port if it names none; empty if it is no address."""
    try:
        parts = urlsplit(url)
        usual = {"http": 80, "https": 443}[parts.scheme]
        port = parts.port or usual
    except (KeyError, ValueError):
        return ""
    fits = re.fullmatch(r"[A-Za-z0-9.-]{1,253}|[0-9a-f:.]+", parts.hostname or "")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{port}" if fits else ""


def fits_namespace(word: str) -> bool:
    """Whether queues and a vhost can be called after it."""
    return bool(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}", word))


def _is_cidr(block: str) -> bool:
    try:
        ip_network(block, strict=False)
    except ValueError:
        return False
    return bool(re.search(r"/[0-9]+$", block))


def load(charm: ops.CharmBase) -> tuple[Config | None, str]:
    """The options, or what is wrong with them in one line."""
    try:
        return charm.load_config(Config, errors="raise"), ""
    except ValidationError as error:
        return None, "; ".join(_mistake(item) for item in error.errors())


def _mistake(item: Any) -> str:
    option = str(item["loc"][0]).replace("_", "-")
    return f"invalid config {option}: {str(item['msg']).removeprefix('Value error, ')}"
