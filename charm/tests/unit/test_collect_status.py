"""Every row of the table of statuses."""

import pytest
from conftest import CHARM, OPTIONS, amqp, cluster, deployed, image, password, row
from ops import ActiveStatus, BlockedStatus, MaintenanceStatus, WaitingStatus, testing

import charm
import workload


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
        ("script-url", "https://user:pw@x/", "without a user name or password"),
        ("script-url", "https://x:99999/", "must begin with https://"),
        ("script-url", "https:///x", "must begin with https://"),
        ("openstack-auth-url", "https://:5000/v3", "and a host"),
        ("namespace", "A b", "must be small letters"),
        ("namespace", "a" * 61, "at most 60"),
        ("ssh-from", "10.0.8.5", "10.0.8.5 is no CIDR block"),
        ("ssh-from", "10.0.8.0/24, fd00::/200", "fd00::/200 is no CIDR block"),
        ("ssh-from", "10.0.8.0/255.255.255.0", "no CIDR block"),
        ("runner-version", "v2.330.0", "must be three numbers"),
        ("runner-version", "newest", "must be three numbers"),
        ("log-level", "loud", "must be one of"),
        ("worker-concurrency", 0, "greater than or equal to 1"),
    ],
)
def test_a_bad_option_is_named_with_the_reason(context, option, value, reason):
    found = status(context, deployed(image(), config={option: value}))
    assert isinstance(found, BlockedStatus)
    assert found.message.startswith(f"invalid config {option}: ")
    assert reason in found.message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("runner-version", "latest"),
        ("runner-version", "none"),
        ("ssh-from", "10.0.8.5/32, fd00::/64"),
        ("script-url", "https://h:8443/x"),
        ("openstack-auth-url", "https://[fd00::1]:5000/v3"),
        ("namespace", "a" * 60),
    ],
)
def test_a_good_option_is_taken(context, imagewright, option, value):
    imagewright.images = [row("image-5", "good")]
    assert status(context, deployed(image(), config={option: value})) == ActiveStatus("")


@pytest.mark.parametrize(
    "proxy", ["proxy.example.org:3128", "http://p:port", "socks5://p:1080", "http://[p", "http://[::1]:1"]
)
def test_a_proxy_that_is_no_address_is_named(context, monkeypatch, proxy):
    monkeypatch.setenv("JUJU_CHARM_HTTPS_PROXY", proxy)
    wanted = "invalid model config juju-https-proxy: must be http://HOST:PORT, HOST no IPv6 address"
    assert status(context, deployed(image())) == BlockedStatus(wanted)


def test_a_name_that_is_too_long_for_queues_needs_the_option(machine, imagewright):
    context = testing.Context(charm.ImagewrightCharm, charm_root=CHARM, app_name="a" * 61)
    wanted = "the application's name is too long for a namespace: set the option namespace"
    assert status(context, deployed(image())) == BlockedStatus(wanted)


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
    machine.states[workload.WORKER] = "failed"
    found = status(context, deployed(image()))
    assert found == BlockedStatus("the worker does not run: journalctl -u imagewright-worker")


def test_a_worker_that_is_being_restarted_is_no_failure(context, machine):
    machine.states[workload.WORKER] = "deactivating"
    assert status(context, deployed(image())) == MaintenanceStatus("restarting the worker")


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ({"upload.amd64": (0, 1), "lost": (0, 3)}, ActiveStatus("3 worker(s), 0 queued")),
        (
            {"upload.amd64": (2, 1), "lost": (0, 3), "dead": (4, 0)},
            ActiveStatus("3 worker(s), 2 queued, 4 given up: run list-failed"),
        ),
        ({"upload.amd64": (2, 0), "lost": (0, 0)}, WaitingStatus("2 queued, and no worker takes jobs")),
        ({"pause.build": (1, 0)}, MaintenanceStatus("paused: build; end it with the resume action")),
    ],
)
def test_the_application_says_how_the_queue_stands(context, imagewright, rows, wanted):
    imagewright.images = [row("image-5", "good")]
    queues = [{"queue": f"imagewright.{name}", "ready": of[0], "consumers": of[1]} for name, of in rows.items()]
    imagewright.answers["queues"] = queues
    state = context.run(context.on.update_status(), deployed(image()))
    assert state.app_status == wanted
    assert state.unit_status == ActiveStatus("")


def test_a_queue_that_does_not_answer_is_said(context, imagewright):
    imagewright.images = [row("image-5", "good")]
    state = context.run(context.on.update_status(), deployed(image()))
    imagewright.error = "connection refused"
    state = context.run(context.on.update_status(), state)
    assert state.app_status == WaitingStatus("the queue does not answer: connection refused")


def outside(**content):
    return testing.Secret(content, id="secret:0000000000000000amqp", owner=None)


def test_a_broker_outside_of_juju_serves_several_units(context, machine):
    secret = outside(uri="amqps://u:p@one/v,amqps://u:p@two/v?heartbeat=5", ca="PEM")
    config = {"amqp-uri-secret": secret.id}
    found = status(context, deployed(image(), config=config, secrets=[secret], planned_units=3))
    assert found == ActiveStatus("waiting for the first image of image-5")
    trust = "cacertfile=/etc/imagewright/broker-ca.pem"
    assert machine.files["queue"] == f"amqps://u:p@one/v?{trust},amqps://u:p@two/v?heartbeat=5&{trust}\n"
    assert machine.files["broker-ca.pem"] == "PEM"


def test_two_brokers_are_one_too_many(context):
    secret = outside(uri="amqps://u:p@one/v")
    config = {"amqp-uri-secret": secret.id}
    found = status(context, deployed(image(), amqp(), config=config, secrets=[secret]))
    assert found == BlockedStatus("relation amqp and option amqp-uri-secret: remove one of them")


def test_a_broker_without_an_address_is_told(context):
    secret = outside(uri="one")
    found = status(context, deployed(image(), config={"amqp-uri-secret": secret.id}, secrets=[secret]))
    wanted = "secret for amqp-uri-secret has no key 'uri' that begins with amqps:// or amqp://"
    assert found == BlockedStatus(wanted)


def test_the_first_image_is_waited_for_then_all_is_well(context, imagewright):
    state = context.run(context.on.update_status(), deployed(image()))
    assert state.unit_status == ActiveStatus("waiting for the first image of image-5")
    imagewright.images = [row("image-5", "good")]
    state = context.run(context.on.update_status(), state)
    assert state.unit_status == ActiveStatus("")
    assert state.app_status == ActiveStatus("0 worker(s), 0 queued")


def test_one_cloud_with_an_image_hides_none_without(context, imagewright):
    imagewright.images = [row("image-5", "good")]
    state = context.run(context.on.update_status(), deployed(image(5), image(6)))
    assert state.unit_status == ActiveStatus("waiting for the first image of image-6")


def test_builds_that_cannot_be_asked_for_are_no_active_unit(context, imagewright, machine):
    imagewright.images = [row("image-5", "good")]
    machine.results[workload.SCHEDULE] = "exit-code"
    found = WaitingStatus("asking for builds failed: journalctl -u imagewright-schedule")
    assert status(context, deployed(image())) == found
    assert status(context, deployed(image(), config={"build-interval": 0})) == ActiveStatus("")
