"""The relation `cos-agent`."""

import json
import re

import yaml
from conftest import CHARM, deployed, image
from cosl import LZMABase64
from ops import testing


def test_rules_dashboard_and_metrics_are_offered(context):
    relation = testing.Relation("cos-agent", id=7)
    state = context.run(context.on.relation_created(relation), deployed(image(), relation))
    data = json.loads(state.get_relation(7).local_unit_data["config"])
    text = json.dumps(data["metrics_alert_rules"])
    for alert in (
        "ImageTooOld",
        "RunnerAgentNearCutoff",
        "DeadJobs",
        "QueueNotWorkedOff",
        "WorkerRestarts",
        "BrokerLost",
    ):
        assert f"Imagewright{alert}" in text
    assert "%%juju_topology%%" not in text
    assert "ImagewrightPanic" in json.dumps(data["log_alert_rules"])
    assert data["metrics_scrape_jobs"][0]["static_configs"] == [{"targets": ["localhost:9469"]}]
    assert json.loads(LZMABase64.decompress(data["dashboards"][0]))["title"] == "Imagewright"


def rule(name):
    text = (CHARM / "src/cos/prometheus_rules/imagewright.rules").read_text()
    (found,) = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if rule["alert"] == name]
    return found["expr"]


def test_only_lanes_count_as_work_that_nobody_does_and_a_pause_is_no_failure():
    expression = rule("ImagewrightQueueNotWorkedOff")
    ((_, aside), (_, pause)) = re.findall(r'queue(!~|=~)"([^"]+)"', expression)
    kinds = ["upload.amd64", "build.arm64.started", "prune", "base-image.armhf", "snapshot.s390x"]
    for namespace in ("imagewright", "dead", "a.lost"):
        assert not [kind for kind in kinds if re.fullmatch(aside, f"{namespace}.{kind}")]
        for name in ("dead", "lost", "log", "wait", "wait.15", "wait.7200", "pause.base-image"):
            assert re.fullmatch(aside, f"{namespace}.{name}")
            assert bool(re.fullmatch(pause, f"{namespace}.{name}")) == name.startswith("pause")
    assert "unless" in expression.partition("== 0")[2]


def test_a_worker_that_starts_again_and_again_is_seen_by_its_start():
    assert "changes(imagewright_start_time_seconds" in rule("ImagewrightWorkerRestarts")
