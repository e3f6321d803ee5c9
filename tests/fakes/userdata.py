"""What a server is told at its birth, as far as logging in goes (cloud-init: "Cloud config data")."""

import base64
import binascii
import gzip
from dataclasses import dataclass, field
from typing import Any

import yaml

# Who gets the key pair when the user-data does not name its users.
DEFAULT_USER = "ubuntu"


@dataclass
class Login:
    """Who may log in with which keys, and the host key that the server shows."""

    host_key: str | None = None
    users: dict[str, list[str]] = field(default_factory=dict)


def cloud_config(user_data: str | None) -> dict[str, Any]:
    """The document in Base64 `user_data`, gzip or not; empty where that is no cloud-config."""
    try:
        raw = base64.b64decode(user_data or "", validate=True)
        text = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode()
    except (binascii.Error, OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("#cloud-config"):
        return {}
    found = yaml.safe_load(text)
    return found if isinstance(found, dict) else {}


def login(user_data: str | None, key_pair: str | None) -> Login:
    """What cloud-init makes of user-data and key pair."""
    config = cloud_config(user_data)
    keys = [key_pair] if key_pair else []
    common = [*keys, *config.get("ssh_authorized_keys", [])]
    made = Login(host_key=next((key for name, key in config.get("ssh_keys", {}).items() if "private" in name), None))
    for user in config.get("users", ["default"]):
        if user == "default":
            made.users[DEFAULT_USER] = list(common)
        elif isinstance(user, dict):
            own = user.get("ssh_authorized_keys", []) or user.get("ssh-authorized-keys", [])
            made.users[user["name"]] = list(own)
    return made
