"""On a real controller: CHARM_PATH=imagewright.charm pytest charm/tests/integration. Outside of the default run."""

import os
from pathlib import Path

import jubilant


def test_a_unit_without_options_says_what_is_missing():
    with jubilant.temp_model() as juju:
        juju.deploy(Path(os.environ["CHARM_PATH"]).absolute(), "imagewright")
        juju.wait(jubilant.all_blocked, timeout=900)
        message = juju.status().apps["imagewright"].app_status.message
        assert message.startswith("missing config: openstack-auth-url")


def test_several_units_share_a_broker():
    with jubilant.temp_model() as juju:
        secret = juju.add_secret("build-password", {"password": "x"})
        config = {f"openstack-{name}": "x" for name in ("project-name", "project-domain-name", "user-name")}
        config |= {"openstack-user-domain-name": "x", "openstack-auth-url": "https://keystone.invalid/v3"}
        config |= {"openstack-password-secret": str(secret)}
        juju.deploy(Path(os.environ["CHARM_PATH"]).absolute(), "imagewright", config=config, num_units=2)
        juju.cli("grant-secret", "build-password", "imagewright")
        juju.deploy("rabbitmq-server")
        juju.integrate("imagewright:amqp", "rabbitmq-server")
        juju.wait(
            lambda status: status.apps["imagewright"].app_status.message == "missing relation: image", timeout=1800
        )
        result = juju.run("imagewright/leader", "queue-status")
        assert result.results["failed"] == "0"
