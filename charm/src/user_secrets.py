"""Juju secrets that options name: their newest content, or the line that mends it."""

import re

import ops


class SecretError(Exception):
    """A secret cannot be read; the text says what to do."""


def content(charm: ops.CharmBase, secret: ops.Secret | None, option: str) -> dict[str, str]:
    """The newest content; empty without a secret."""
    if secret is None:
        return {}
    try:
        return secret.get_content(refresh=True)
    except (ops.SecretNotFoundError, ops.ModelError) as error:
        message = f"secret for {option} is not granted: juju grant-secret NAME {charm.app.name}"
        raise SecretError(message) from error


def password(charm: ops.CharmBase, secret: ops.Secret | None) -> str:
    """The password of the build cloud."""
    option = "openstack-password-secret"
    found = content(charm, secret, option).get("password")
    if not found:
        raise SecretError(f"secret for {option} has no key 'password'")
    return found


def queue(charm: ops.CharmBase, secret: ops.Secret | None) -> tuple[str, str]:
    """The address of a RabbitMQ outside of Juju, and its authority in PEM; empty without a secret."""
    option = "amqp-uri-secret"
    found = content(charm, secret, option)
    uri = found.get("uri", "").strip()
    if secret and not re.match(r"amqps?://", uri):
        raise SecretError(f"secret for {option} has no key 'uri' that begins with amqps:// or amqp://")
    return uri, found.get("ca", "")


def script(charm: ops.CharmBase, secret: ops.Secret | None) -> dict[str, str]:
    """What the script is given, by the name of its variable."""
    found = content(charm, secret, "script-secret-id")
    return {re.sub(r"[^A-Z0-9]", "_", key.upper()): value for key, value in found.items()}
