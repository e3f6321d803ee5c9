"""The story of a unit that joins where an image was published before; no server is needed for it."""

import json

from charm_stories.applications import Runner
from charm_stories.juju import APP, Model
from harness.process import scratch_folder


def test_a_new_unit_has_the_id_after_its_first_hook_in_the_relation() -> None:
    """Even while nothing else is well with it: there are no options, and no broker for two units."""
    model = Model(scratch_folder("stories"), {})
    runner = Runner({"auth_url": "https://keystone.invalid/v3"})
    try:
        model.add_units(1)
        model.settle()
        number = model.relate("image", "runner", runner)
        model.settle()
        published = {f"image-{number}": [{"id": "good", "tags": "x64,noble"}]}
        model.state["relations"]["0"]["bags"][APP] = {"published": json.dumps(published)}
        model.update_status()
        assert runner.seen[-1] == {"good"}
        model.add_units(1)
        model.settle()
        assert model.members(number) == [f"{APP}/0", f"{APP}/1"]
        assert all(seen == {"good"} for seen in runner.seen), runner.seen
    finally:
        model.stop()
