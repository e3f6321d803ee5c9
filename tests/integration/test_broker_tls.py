"""AMQP over TLS: who vouches for the broker, who we are, and what is said when that does not hold."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.certificates import Authority, Certificate
from harness.cli import ANSWER, Client, Done
from harness.process import LOOPBACK, wait_for
from harness.rabbitmq import Broker, Tls

pytestmark = pytest.mark.xdist_group("topology")

NAMESPACE = "tls"
PASSWORD = "pass-of-the-test"
PAST = datetime(2021, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that the brokers do not know."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


def _started(tls: Tls, folder: Path) -> Iterator[Broker]:
    """Its queues are there: they are not what a command has nine seconds for here."""
    made = Broker(tls=tls)
    try:
        made.start()
        node = made.nodes[0]
        node.ctl("change_password", "guest", PASSWORD)
        plain = Client(f"amqp://guest:{PASSWORD}@{LOOPBACK}:{node.port}", NAMESPACE, folder / "clouds.yaml", folder)
        wait_for("the queues are declared", lambda: plain.try_run("queues").code == 0, 60)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def open_broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Asks for no client certificate."""
    yield from _started(Tls(authority), tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="module")
def strict_broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Lets in only who has a client certificate: verify_peer and fail_if_no_peer_cert."""
    yield from _started(Tls(authority, client_certificates=True), tmp_path_factory.mktemp("strict"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Certificate:
    return authority.issue("worker", "worker@example.org")


class Asker:
    """Runs `queues` at an address of its own."""

    def __init__(self, folder: Path) -> None:
        self._client = Client("", NAMESPACE, folder / "clouds.yaml", folder)

    def ask(self, broker: Broker, host: str = LOOPBACK, **files: Path) -> Done:
        query = "&".join(f"{name}={path}" for name, path in files.items())
        self._client.queue = f"amqps://guest:{PASSWORD}@{host}:{broker.nodes[0].tls_port}/?{query}"
        return self._client.try_run("queues", seconds=ANSWER)

    def refused(self, broker: Broker, why: str, host: str = LOOPBACK, code: int = 64, **files: Path) -> None:
        """One line that says why, soon, and without the password."""
        done = self.ask(broker, host, **files)
        assert done.code == code, done.err
        assert done.out == ""
        assert why in done.err
        assert len(done.err.splitlines()) == 1, done.err
        assert PASSWORD not in done.err


@pytest.fixture
def asker(tmp_path: Path) -> Asker:
    return Asker(tmp_path)


def test_a_private_authority_is_trusted_when_it_is_named(
    asker: Asker, open_broker: Broker, authority: Authority
) -> None:
    assert asker.ask(open_broker, cacertfile=authority.ca).code == 0


def test_a_client_certificate_opens_a_strict_broker(
    asker: Asker, strict_broker: Broker, authority: Authority, ours: Certificate
) -> None:
    assert asker.ask(strict_broker, cacertfile=authority.ca, certfile=ours.cert, keyfile=ours.key).code == 0


@pytest.mark.parametrize("rsa", [True, False], ids=["pkcs1", "sec1"])
def test_keys_in_the_older_formats_are_taken(
    asker: Asker, strict_broker: Broker, authority: Authority, rsa: bool
) -> None:
    made = authority.issue(f"older-{rsa}", "older@example.org", rsa=rsa)
    key = made.traditional_key()
    assert ("RSA" if rsa else "EC") in key.read_text().splitlines()[0]
    assert asker.ask(strict_broker, cacertfile=authority.ca, certfile=made.cert, keyfile=key).code == 0


def test_without_a_named_authority_a_private_one_is_not_trusted(asker: Asker, open_broker: Broker) -> None:
    asker.refused(open_broker, "give its CA as ?cacertfile=FILE")


def test_only_the_named_authority_is_trusted(asker: Asker, open_broker: Broker, stranger: Authority) -> None:
    asker.refused(open_broker, f"not issued by an authority in cacertfile {stranger.ca}", cacertfile=stranger.ca)


def test_a_certificate_for_another_host_is_refused(asker: Asker, open_broker: Broker, authority: Authority) -> None:
    asker.refused(open_broker, "certificate is not for localhost", host="localhost", cacertfile=authority.ca)


def test_an_expired_certificate_of_the_broker_is_refused(
    asker: Asker, open_broker: Broker, authority: Authority
) -> None:
    node = open_broker.nodes[0]
    node.show(authority.issue("expired", LOOPBACK, not_after=PAST))
    asker.refused(open_broker, "certificate has expired", cacertfile=authority.ca)
    node.show(authority.issue("renewed", LOOPBACK))
    assert asker.ask(open_broker, cacertfile=authority.ca).code == 0


def test_files_that_cannot_be_used_are_named(
    asker: Asker, strict_broker: Broker, authority: Authority, ours: Certificate, tmp_path: Path
) -> None:
    absent, empty = tmp_path / "absent.pem", tmp_path / "empty.pem"
    empty.touch()
    other = authority.issue("other", "other@example.org")
    asker.refused(strict_broker, f"cannot read cacertfile {absent}", cacertfile=absent)
    asker.refused(strict_broker, f"cacertfile {empty} holds no certificate", cacertfile=empty)
    wrong_keys = {
        f"cannot read keyfile {absent}": absent,
        f"keyfile {empty} holds no private key": empty,
        f"keyfile {other.key} is not the key of the certificate": other.key,
        "has a passphrase": ours.locked_key("long enough"),
    }
    for why, key in wrong_keys.items():
        asker.refused(strict_broker, why, cacertfile=authority.ca, certfile=ours.cert, keyfile=key)


def test_a_directory_in_place_of_a_key_is_said(
    asker: Asker, strict_broker: Broker, authority: Authority, ours: Certificate, tmp_path: Path
) -> None:
    """What no permission can hide from root: the key cannot be read."""
    asker.refused(
        strict_broker, f"cannot read keyfile {tmp_path}", cacertfile=authority.ca, certfile=ours.cert, keyfile=tmp_path
    )


@pytest.mark.parametrize("how", ["none", "stranger", "expired"])
def test_a_client_certificate_that_is_missing_or_not_accepted_is_said(
    asker: Asker, strict_broker: Broker, authority: Authority, stranger: Authority, how: str
) -> None:
    """The broker hangs up; its reason does not always arrive before the end of the connection."""
    if how == "none":
        done = asker.ask(strict_broker, cacertfile=authority.ca)
    else:
        issuer, until = (stranger, None) if how == "stranger" else (authority, PAST)
        made = issuer.issue(how, "who@example.org", not_after=until)
        done = asker.ask(strict_broker, cacertfile=authority.ca, certfile=made.cert, keyfile=made.key)
    assert done.code in (64, 69)
    assert "certfile" in done.err
    assert len(done.err.splitlines()) == 1


def test_plain_and_secure_ports_are_told_apart(open_broker: Broker, authority: Authority) -> None:
    node = open_broker.nodes[0]
    address = f"amqp://guest:{PASSWORD}@{LOOPBACK}:{node.tls_port}"
    client = Client(address, NAMESPACE, authority.ca, authority.ca.parent)
    done = client.try_run("queues", seconds=ANSWER)  # the broker's alert may be lost when it hangs up
    assert done.code in (64, 69)
    assert "write amqps://" in done.err
    client.queue = f"amqps://guest:{PASSWORD}@{LOOPBACK}:{node.port}?cacertfile={authority.ca}"
    assert "does not speak TLS: write amqp://" in client.run("queues", code=64, seconds=ANSWER).err
