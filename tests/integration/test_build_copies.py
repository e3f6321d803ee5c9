"""An image of a build on its way to other clouds, of recorded answers like the one it was made on."""

from pathlib import Path

import pytest

from fakes.cloud import FakeCloud
from fakes.site import Builder
from harness.https import FileServer
from harness.process import wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("build-copies")]


def test_a_copy_that_fails_is_repeated_and_nothing_is_built_again(tmp_path: Path, files: FileServer) -> None:
    clouds = FakeCloud(), FakeCloud()
    for cloud in clouds:
        cloud.start()
    here, edge = clouds
    made = Builder(tmp_path, files, here, others={"edge": edge})
    try:
        fault = edge.faults.answer("PUT", "/file$", 503, times=2)
        entry = made.client.tree_ended(made.build("copied", "--upload-to", "fake,edge", script=False), 150)
        assert fault.met == 2
        (image,) = made.images("copied")
        (copy,) = [one for one in list(edge.state.images.values()) if one["name"] == "copied"]
        assert entry["result"]["image_id"] == image["id"]
        assert copy["os_hash_value"] == image["os_hash_value"]
        assert here.state.most_servers == 1
    finally:
        made.stop()
        for cloud in clouds:
            cloud.stop()


def test_a_cloud_that_is_away_keeps_no_other_from_an_image_that_is_there(tmp_path: Path, files: FileServer) -> None:
    clouds = {name: FakeCloud() for name in ("fake", "edge", "far")}
    for cloud in clouds.values():
        cloud.start()
    edge, far = clouds["edge"], clouds["far"]
    made = Builder(tmp_path, files, clouds["fake"], others={"edge": edge, "far": far})

    def copies(cloud: FakeCloud) -> list[str]:
        return [one["os_hash_value"] for one in list(cloud.state.images.values()) if one["name"] == "spread"]

    try:
        made.client.tree_ended(made.build("spread", script=False), 150)
        (image,) = made.images("spread")
        away = edge.faults.answer("GET", "/v2/images", 503, times=None)
        job = made.build("spread", "--upload-to", "fake,edge,far", script=False)
        wait_for("the other cloud has it", lambda: copies(far) == [image["os_hash_value"]], 60, every=0.2)
        wait_for("it is tried again", lambda: made.client.status(job)["attempts"] > 1, 60, every=0.2)
        assert "spec.upload_to: edge" in made.told(job)
        edge.faults.http.remove(away)
        entry = made.client.tree_ended(job, 150)
        assert entry["result"]["unchanged"] is True
        assert len(entry["result"]["children"]) == 2
        assert copies(edge) == copies(far) == [image["os_hash_value"]]
        assert clouds["fake"].state.most_servers == 1
    finally:
        made.stop()
        for cloud in clouds.values():
            cloud.stop()
