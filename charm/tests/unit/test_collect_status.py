"""Every row of the table of statuses."""

import pytest
from conftest import OPTIONS, amqp, cluster, deployed, image, password, row
from ops import ActiveStatus, BlockedStatus, MaintenanceStatus, WaitingStatus, testing


def status(context, state):
    return context.run(context.on.update_status(), state).unit_status


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("architecture", "sparc", "must be one of"),
        ("base-image", "trusty", "must be a list of"),
        ("base-image", "", "must be a list of"),
        ("build-interval", 25, "less than or equal to 24"),
        ("revision-history-limit", 1, "greater than or equal to 2"),
        ("openstack-auth-url", "keystone", "must begin with"),
        ("script-url", "http://x/", "must begin with https://"),
        ("namespace", "A b", "must be small letters"),
        ("log-level", "loud", "must be one of"),
    ],
)
def test_a_bad_option_is_named_with_the_reason(context, option, value, reason):
    found = status(context, deployed(image(), config={option: value}))
    assert isinstance(found, BlockedStatus)
    assert found.message.startswith(f"invalid config {option}: ")
    assert reason in found.message


def test_missing_options_are_all_named(context):
    found = status(context, testing.State(relations=[cluster()], leader=True))
    names = [*(f"openstack-{key}" for key in ("auth-url", "project-name", "project-domain-name")), *list(OPTIONS)[3:]]
    assert found == BlockedStatus(f"missing config: {', '.join(names)}, openstack-password-secret")


def test_a_secret_that_is_not_granted_has_its_remedy(context):
    found = status(context, deployed(image(), secret=None))
    wanted = "secret for openstack-password-secret is not granted: juju grant-secret NAME imagewright"
    assert found == BlockedStatus(wanted)


def test_a_secret_without_the_key_is_told(context):
    secret = testing.Secret({"other": "x"}, id="secret:000000000000password", owner=None)
    found = status(context, deployed(image(), secret=secret))
    assert found == BlockedStatus("secret for openstack-password-secret has no key 'password'")


def test_several_units_need_a_broker(context):
    found = status(context, deployed(image(), planned_units=2))
    assert found == BlockedStatus("missing relation: amqp (several units need a shared queue)")


def test_the_broker_has_not_answered(context):
    assert status(context, deployed(image(), amqp())) == WaitingStatus("waiting for amqp credentials")


def test_nobody_wants_images(context):
    assert status(context, deployed()) == BlockedStatus("missing relation: image")


def test_the_consumer_has_not_answered(context):
    wanted = WaitingStatus("waiting for cloud credentials on image")
    assert status(context, deployed(image(login={}))) == wanted


def test_a_follower_waits_for_the_build_key(context):
    assert status(context, deployed(image(), leader=False)) == WaitingStatus("waiting for the leader's build key")


def test_without_peers_a_unit_waits(context):
    secret = password()
    config = {**OPTIONS, "openstack-password-secret": "secret:000000000000password"}
    found = status(context, testing.State(config=config, secrets=[secret], planned_units=1))
    assert found == WaitingStatus("waiting for peer data")


def test_a_worker_that_does_not_run_is_no_active_unit(context, machine):
    machine.up = False
    found = status(context, deployed(image()))
    assert found == BlockedStatus("the worker does not run: journalctl -u imagewright-worker")


def test_a_paused_unit_says_how_it_goes_on(context):
    found = status(context, deployed(image(), cluster(mine={"paused": "true"})))
    assert found == MaintenanceStatus("paused: run the resume action")


def test_the_first_image_is_waited_for_then_all_is_well(context, imagewright):
    state = context.run(context.on.update_status(), deployed(image()))
    assert state.unit_status == ActiveStatus("waiting for the first image")
    imagewright.images = [row("image-5", "good")]
    state = context.run(context.on.update_status(), state)
    assert state.unit_status == ActiveStatus("")
    assert state.app_status == ActiveStatus("")
