"""The relation charm-tracing: where the charm's own hooks are traced to, if anybody wants that."""

import json

from conftest import deployed, image
from ops import testing


def test_the_leader_asks_for_http_and_hooks_go_on(context):
    tracing = testing.Relation("charm-tracing", id=7, remote_app_name="tempo")
    state = context.run(context.on.relation_created(tracing), deployed(image(), tracing))
    assert json.loads(state.get_relation(7).local_app_data["receivers"]) == ["otlp_http"]
    assert state.unit_status.name == "active"


def test_without_it_nothing_is_asked(context):
    state = context.run(context.on.update_status(), deployed(image()))
    assert not list(state.get_relations("charm-tracing"))
