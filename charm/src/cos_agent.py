"""The relation `cos-agent`: metrics to scrape, alert rules, rules for logs, dashboards."""

import json
from pathlib import Path

import ops
from cosl import DashboardPath40UID, JujuTopology, LZMABase64
from cosl.rules import AlertRules, generic_alert_groups

import files

RELATION = "cos-agent"
FOLDER = Path(__file__).parent / "cos"


def publish(charm: ops.CharmBase) -> None:
    """Writes this unit's data, on real change only."""
    for relation in charm.model.relations[RELATION]:
        if not relation.active:
            continue
        text = json.dumps(_data(charm), sort_keys=True)
        if relation.data[charm.unit].get("config") != text:
            relation.data[charm.unit]["config"] = text


def _data(charm: ops.CharmBase) -> dict[str, object]:
    topology = JujuTopology.from_charm(charm)
    metrics = AlertRules(query_type="promql", topology=topology)
    metrics.add_path(FOLDER / "prometheus_rules")
    metrics.add(generic_alert_groups.application_rules, group_name_prefix=topology.identifier)
    logs = AlertRules(query_type="logql", topology=topology)
    logs.add_path(FOLDER / "loki_rules")
    return {
        "metrics_alert_rules": metrics.as_dict(),
        "log_alert_rules": logs.as_dict(),
        "dashboards": [_dashboard(charm, path) for path in sorted((FOLDER / "dashboards").glob("*.json"))],
        "metrics_scrape_jobs": [
            {
                "job_name": "imagewright",
                "metrics_path": "/metrics",
                "static_configs": [{"targets": [files.LISTEN.replace("127.0.0.1", "localhost")]}],
            }
        ],
        "log_slots": [],
    }


def _dashboard(charm: ops.CharmBase, path: Path) -> str:
    board = json.loads(path.read_text())
    board["uid"] = DashboardPath40UID.generate(charm.meta.name, path.name)
    return LZMABase64.compress(json.dumps(board))
