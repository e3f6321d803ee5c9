"""On a real controller: CHARM_PATH=imagewright.charm pytest -rs charm/tests/integration. Outside of the default run."""

import os
from collections.abc import Iterator
from pathlib import Path

import jubilant
import pytest

APP = "imagewright"


@pytest.fixture(scope="module")
def juju() -> Iterator[jubilant.Juju]:
    """A model of its own, gone afterwards."""
    with jubilant.temp_model() as made:
        yield made


def test_a_unit_without_options_says_what_is_missing(juju: jubilant.Juju) -> None:
    juju.deploy(Path(os.environ["CHARM_PATH"]).absolute(), APP)
    juju.wait(jubilant.all_blocked, timeout=900)
    message = juju.status().apps[APP].app_status.message
    assert message.startswith("missing config: openstack-auth-url")


def test_several_units_share_a_broker(juju: jubilant.Juju) -> None:
    secret = juju.add_secret("build-password", {"password": "x"})
    juju.cli("grant-secret", "build-password", APP)
    config = {f"openstack-{name}": "x" for name in ("project-name", "project-domain-name", "user-name")}
    config |= {"openstack-user-domain-name": "x", "openstack-auth-url": "https://keystone.invalid/v3"}
    juju.config(APP, {**config, "openstack-password-secret": str(secret)})
    juju.add_unit(APP, num_units=1)
    juju.deploy("rabbitmq-server")
    juju.integrate(f"{APP}:amqp", "rabbitmq-server")
    juju.wait(lambda status: status.apps[APP].app_status.message == "missing relation: image", timeout=1800)
    result = juju.run(f"{APP}/leader", "queue-status")
    assert result.results["failed"] == "0"
    assert result.results["consumers"] == "2"


def test_a_pause_is_seen_in_the_status_until_it_ends(juju: jubilant.Juju) -> None:
    assert "build" in juju.run(f"{APP}/1", "pause", {"kind": "build"}).results["paused"]
    assert juju.run(f"{APP}/0", "queue-status").results["paused"] == "build"
    juju.run(f"{APP}/0", "resume")
    assert juju.run(f"{APP}/1", "queue-status").results["paused"] == ""


def test_the_leader_may_go(juju: jubilant.Juju) -> None:
    units = juju.status().apps[APP].units
    (leader,) = [name for name, unit in units.items() if unit.leader]
    juju.remove_unit(leader)
    juju.wait(lambda status: len(status.apps[APP].units) == 1, timeout=900)
    juju.wait(lambda status: any(unit.leader for unit in status.apps[APP].units.values()), timeout=900)
    assert juju.run(f"{APP}/leader", "queue-status").results["failed"] == "0"
