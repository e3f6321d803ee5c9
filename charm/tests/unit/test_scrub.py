"""What stays and what goes while a unit cannot be set up."""

import dataclasses

import pytest
import yaml
from conftest import amqp, cluster, deployed, image, password
from ops import testing

SCRIPT = testing.Secret({"token": "t0k3n"}, id="secret:00000000000000script", owner=None)
BLOCKED = {"log-level": "loud"}


def everything(*relations, **more):
    config = {"script-url": "https://h.example.org/x", "script-secret-id": SCRIPT.id, **more.pop("config", {})}
    return deployed(*relations, config=config, secrets=[*more.pop("secrets", []), SCRIPT], **more)


def logins(machine):
    return set(yaml.safe_load(machine.files["clouds.yaml"])["clouds"])


def test_a_wrong_option_takes_nothing_away_and_stops_nothing(context, machine):
    relation = amqp(hostname="h", password="x")
    context.run(context.on.config_changed(), everything(image(), relation))
    before = dict(machine.files)
    machine.calls.clear()
    context.run(context.on.config_changed(), everything(image(), relation, config=BLOCKED))
    assert machine.files == before
    assert machine.calls == []


def test_a_broker_that_is_gone_leaves_no_password_and_no_worker(context, machine):
    relation = amqp(hostname="h", password="br0k3r", ssl_port="5671", ssl_ca="-----BEGIN")
    state = context.run(context.on.config_changed(), deployed(image(), relation, planned_units=3))
    machine.calls.clear()
    context.run(context.on.relation_broken(state.get_relation(9)), state)
    assert "br0k3r" not in "".join(machine.files.values())
    assert not {"queue", "broker-ca.pem"} & set(machine.files)
    assert machine.calls == ["stop_worker", "no_schedule"]


@pytest.mark.parametrize("revoked", [False, True])
def test_a_broker_by_a_secret_goes_with_it(context, machine, revoked):
    secret = testing.Secret({"uri": "amqp://u:br0k3r@h/v"}, id="secret:0000000000000000amqp", owner=None)
    config = {"amqp-uri-secret": secret.id}
    state = context.run(context.on.config_changed(), deployed(image(), config=config, secrets=[secret]))
    left = {option: value for option, value in state.config.items() if revoked or option != "amqp-uri-secret"}
    secrets = [other for other in state.secrets if not (revoked and other.id == secret.id)]
    state = dataclasses.replace(state, config={**left, **BLOCKED} if not revoked else left, secrets=secrets)
    context.run(context.on.update_status(), state)
    assert "br0k3r" not in "".join(machine.files.values())
    assert "stop_worker" in machine.calls


def test_the_embedded_queue_goes_on_while_a_broker_is_lacking(context, machine):
    context.run(context.on.config_changed(), deployed(image()))
    machine.calls.clear()
    context.run(context.on.config_changed(), deployed(image(), planned_units=2))
    assert machine.files["queue"].startswith("sqlite:")
    assert machine.calls == []


def test_a_cloud_that_departs_leaves_no_login_also_then(context, machine):
    relation = image(6)
    context.run(context.on.config_changed(), deployed(image(5), relation))
    machine.calls.clear()
    context.run(context.on.relation_broken(relation), deployed(image(5), relation, config=BLOCKED))
    assert logins(machine) == {"build", "image-5"}
    assert machine.calls == ["reload"]


@pytest.mark.parametrize("kept", [password(), SCRIPT])
def test_a_secret_that_was_revoked_is_forgotten(context, machine, kept):
    state = context.run(context.on.config_changed(), everything(image()))
    machine.calls.clear()
    theirs = [secret for secret in state.secrets if secret.owner is None and secret.id != kept.id]
    state = dataclasses.replace(state, secrets=[secret for secret in state.secrets if secret not in theirs])
    context.run(context.on.update_status(), state)
    texts = "".join(machine.files.values())
    assert ("pw-1" in texts) == ("build" in logins(machine)) == (kept.id == password().id)
    assert ("t0k3n" in texts) == (kept.id == SCRIPT.id)
    assert ("stop_worker" in machine.calls) == (kept.id == SCRIPT.id)
    assert "image-5" in logins(machine)


def test_a_leader_of_before_asks_for_nothing_also_then(context, machine):
    context.run(context.on.config_changed(), deployed(image()))
    machine.calls.clear()
    context.run(context.on.config_changed(), deployed(image(), cluster(), leader=False, config=BLOCKED))
    assert machine.calls == ["no_schedule"]
