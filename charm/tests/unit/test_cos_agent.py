"""The relation `cos-agent`."""

import json

from conftest import deployed, image
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
