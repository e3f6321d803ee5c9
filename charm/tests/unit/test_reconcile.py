"""Events that bring a unit to what Juju says."""

import pytest
import yaml
from conftest import amqp, cluster, deployed, image, password, published, row
from ops import testing

EVENTS = ["install", "start", "upgrade_charm", "config_changed", "update_status", "leader_elected"]


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_leads_to_the_same_unit(context, machine, event):
    context.run(getattr(context.on, event)(), deployed(image()))
    logins = yaml.safe_load(machine.files["clouds.yaml"])["clouds"]
    assert set(logins) == {"build", "image-5"}
    assert logins["build"]["auth"]["password"] == "pw-1"
    assert logins["image-5"]["auth"]["password"] == "s3cr3t-of-edge"
    assert machine.files["queue"] == "sqlite:/var/lib/imagewright/queue.db\n"
    assert "schedule=True" in machine.calls


def test_two_clouds_with_the_same_project_and_user_stay_two(context, machine):
    context.run(context.on.config_changed(), deployed(image(5), image(6)))
    assert {"image-5", "image-6"} < set(yaml.safe_load(machine.files["clouds.yaml"])["clouds"])


def test_regions_go_to_clouds_yaml(context, machine):
    config = {"openstack-region": "one", "image-region": "two"}
    context.run(context.on.config_changed(), deployed(image(), config=config))
    logins = yaml.safe_load(machine.files["clouds.yaml"])["clouds"]
    assert (logins["build"]["region_name"], logins["image-5"]["region_name"]) == ("one", "two")


def test_nothing_changed_restarts_nothing(context, machine):
    state = context.run(context.on.config_changed(), deployed(image()))
    machine.calls.clear()
    context.run(context.on.update_status(), state)
    assert "run" in machine.calls
    assert not {"restart", "reload"} & set(machine.calls)


def test_a_rotated_password_is_applied_at_once_without_a_restart(context, machine):
    state = context.run(context.on.config_changed(), deployed(image()))
    machine.calls.clear()
    rotated = testing.Secret(
        {"password": "pw-1"}, latest_content={"password": "pw-2"}, id="secret:000000000000password", owner=None
    )
    kept = [secret for secret in state.secrets if secret.owner == "app"]
    state = testing.State(
        config=state.config, relations=state.relations, secrets=[rotated, *kept], leader=True, planned_units=1
    )
    context.run(context.on.secret_changed(rotated), state)
    assert "pw-2" in machine.files["clouds.yaml"]
    assert "pw-1" not in machine.files["clouds.yaml"]
    assert "reload" in machine.calls


def test_new_programs_restart_the_worker(context, machine):
    state = context.run(context.on.config_changed(), deployed(image()))
    machine.calls.clear()
    machine.outdated = True
    context.run(context.on.upgrade_charm(), state)
    assert "restart" in machine.calls


def test_programs_that_came_while_the_unit_was_blocked_restart_the_worker_later(context, machine):
    state = context.run(context.on.config_changed(), deployed(image()))
    machine.calls.clear()
    machine.outdated = True
    context.run(context.on.upgrade_charm(), deployed(image(), config={"log-level": "loud"}))
    assert "restart" not in machine.calls
    context.run(context.on.config_changed(), state)
    context.run(context.on.update_status(), state)
    assert machine.calls.count("restart") == 1


def test_a_departed_cloud_leaves_no_credentials(context, machine):
    relation = image()
    context.run(context.on.config_changed(), deployed(relation))
    context.run(context.on.relation_broken(relation), deployed(relation))
    assert "s3cr3t-of-edge" not in "".join(machine.files.values())


def test_a_changed_option_asks_for_a_build_at_once(context, machine):
    state = context.run(context.on.config_changed(), deployed(image()))
    state = context.run(context.on.update_status(), state)
    machine.calls.clear()
    changed = testing.State(
        config={**state.config, "runner-version": "2.330.0"},
        relations=state.relations,
        secrets=state.secrets,
        leader=True,
        planned_units=1,
    )
    context.run(context.on.config_changed(), changed)
    assert "schedule_now" in machine.calls


def test_the_leader_asks_only_when_every_unit_has_the_cloud(context, machine):
    waiting = cluster(others={1: {"clouds": "other"}})
    relations = [image(), waiting, amqp(hostname="10.1.1.1", password="x")]
    context.run(context.on.config_changed(), deployed(*relations, planned_units=2))
    assert "schedule_now" not in machine.calls


def test_only_the_leader_schedules(context, machine):
    key = testing.Secret({"key": "k" * 64}, id="secret:00000000000buildkey", owner=None)
    peer = cluster(app={"build-key-secret": "secret:00000000000buildkey"})
    context.run(context.on.config_changed(), deployed(image(), peer, leader=False, secrets=[key]))
    assert "schedule=False" in machine.calls
    assert "schedule_now" not in machine.calls


def test_the_script_may_be_fetched_and_has_its_secrets(context, machine):
    script = testing.Secret({"api-token": "t0k3n"}, id="secret:00000000000000script", owner=None)
    config = {"script-url": "https://scripts.example.org/x.sh", "script-secret-id": "secret:00000000000000script"}
    state = context.run(context.on.config_changed(), deployed(image(), secrets=[script], config=config))
    assert "scripts.example.org" in machine.files["environment"]
    assert machine.files["secrets/API_TOKEN"] == "t0k3n"
    assert yaml.safe_load(machine.files["policy.yaml"])["secrets"] == {"API_TOKEN": {"hosts": ["scripts.example.org"]}}
    assert "--script-secret API_TOKEN" in machine.files["schedule"]
    assert "t0k3n" not in machine.files["schedule"] + str(published(state))


@pytest.mark.parametrize(("version", "asked"), [("", True), ("latest", True), ("2.330.0", True), ("none", False)])
def test_releases_of_the_runner_agent_may_be_fetched(context, machine, version, asked):
    context.run(context.on.config_changed(), deployed(image(), config={"runner-version": version}))
    (line,) = [line for line in machine.files["environment"].splitlines() if line.startswith("IMAGEWRIGHT_URL_HOST=")]
    hosts = line.partition("=")[2].split(",")
    assert ("api.github.com" in hosts) == asked
    assert "cloud-images.ubuntu.com" in hosts


def test_no_message_may_ask_for_a_snapshot_of_a_server(context, machine):
    context.run(context.on.config_changed(), deployed(image()))
    assert yaml.safe_load(machine.files["policy.yaml"])["servers"] == []


@pytest.mark.parametrize(("images", "to_one"), [(1, 4), (8, 4), (64, 32)])
def test_more_images_at_once_are_more_to_one_cloud(context, machine, images, to_one):
    context.run(context.on.config_changed(), deployed(image(), config={"worker-concurrency": images}))
    assert f"IMAGEWRIGHT_CONCURRENCY=upload={images}\n" in machine.files["environment"]
    assert f"IMAGEWRIGHT_CLOUD_TRANSFERS={to_one}\n" in machine.files["environment"]


def test_no_secret_is_in_a_databag_or_an_argument(context, machine, imagewright):
    state = context.run(context.on.config_changed(), deployed(image(), amqp(hostname="h", password="br0k3r")))
    bags = "".join(str(relation.local_unit_data) + str(relation.local_app_data) for relation in state.relations)
    words = " ".join(word for call in imagewright.calls for word in call)
    shown = bags + words + "".join(machine.units.values()) + machine.files["schedule"] + machine.files["environment"]
    for secret in ("pw-1", "s3cr3t-of-edge", "br0k3r", machine.files["build-key"]):
        assert secret not in shown


@pytest.mark.parametrize(
    ("proxy", "builders"),
    [
        ("http://proxy.example.org:3128", "proxy.example.org:3128"),
        ("http://user:pw@proxy.example.org", "proxy.example.org:80"),
        ("https://proxy.example.org/", "proxy.example.org:443"),
    ],
)
def test_a_proxy_goes_to_workers_and_builders(context, machine, monkeypatch, proxy, builders):
    monkeypatch.setenv("JUJU_CHARM_HTTP_PROXY", proxy)
    context.run(context.on.config_changed(), deployed(image()))
    assert f"HTTP_PROXY={proxy}\n" in machine.files["environment"]
    assert yaml.safe_load(machine.files["policy.yaml"])["proxies"] == [builders]
    assert f"--proxy {builders}" in machine.files["schedule"]


def test_stop_and_remove_take_away_what_is_ours(context, machine):
    context.run(context.on.stop(), deployed(secret=password()))
    context.run(context.on.remove(), deployed(secret=password()))
    assert machine.calls == ["stop_worker", "remove"]


def test_the_predecessors_images_are_adopted(context, machine, imagewright):
    imagewright.images = [row("image-5", "old-1", name="builder-noble-x64", verified=False, job=None)]
    state = context.run(context.on.config_changed(), deployed(image(), config={"image-name-prefix": "builder"}))
    assert yaml.safe_load(machine.files["policy.yaml"])["adopt"] == ["builder-noble-x64"]
    assert published(state)["id"] == "old-1"
    assert "schedule_now" not in machine.calls
