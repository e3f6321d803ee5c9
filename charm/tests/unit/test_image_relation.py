"""What the consumer of `image` reads, whichever unit it meets."""

import json

from conftest import LOGIN, cluster, deployed, ids, image, published, row
from ops import testing


def test_the_newest_usable_image_is_published_in_the_consumers_words(context, imagewright):
    imagewright.images = [
        row("image-5", "saving", status="saving"),
        row("image-5", "unverified", verified=False),
        row("image-5", "good"),
        row("image-5", "older"),
    ]
    relation = image()
    bag = published(context.run(context.on.relation_changed(relation), deployed(relation)))
    assert bag["id"] == "good"
    assert bag["tags"] == "x64,noble"
    assert json.loads(bag["images"]) == [{"id": "good", "tags": "x64,noble"}]


def test_the_first_base_is_the_primary_image(context, imagewright):
    imagewright.images = [row("image-5", "n"), row("image-5", "j", name="imagewright-jammy-x64")]
    state = context.run(context.on.config_changed(), deployed(image(), config={"base-image": "22.04,noble"}))
    bag = published(state)
    assert (bag["id"], bag["tags"], ids(bag)) == ("j", "x64,jammy", ["j", "n"])


def test_a_good_id_is_never_taken_back(context, imagewright):
    imagewright.images = [row("image-5", "good")]
    state = context.run(context.on.config_changed(), deployed(image()))
    imagewright.images = []
    state = context.run(context.on.update_status(), state)
    imagewright.error = "no cloud answers"
    state = context.run(context.on.update_status(), state)
    assert published(state)["id"] == "good"


def test_an_error_of_one_cloud_takes_nothing_from_it_or_others(context, imagewright):
    jammy = {"name": "imagewright-jammy-x64"}
    imagewright.images = [row("image-5", "n5"), row("image-5", "j5", **jammy), row("image-6", "n6")]
    config = {"base-image": "noble,jammy"}
    state = context.run(context.on.config_changed(), deployed(image(5), image(6), config=config))
    imagewright.away = {"image-5"}
    imagewright.images = [row("image-5", "j5-new", **jammy), row("image-6", "n6-new")]
    imagewright.calls.clear()
    state = context.run(context.on.update_status(), state)
    assert ids(published(state, 5)) == ["n5", "j5"]
    assert ids(published(state, 6)) == ["n6-new"]
    assert len(imagewright.said("images")) == 1


def test_every_unit_publishes_what_the_leader_saw(context, imagewright):
    images = {"image-5": [{"id": "good", "tags": "x64,noble"}]}
    key = testing.Secret({"key": "k"}, id="secret:00000000000buildkey", owner=None)
    peer = cluster(app={"published": json.dumps(images), "build-key-secret": "secret:00000000000buildkey"})
    relation = image()
    state = deployed(relation, peer, leader=False, secrets=[key])
    assert published(context.run(context.on.relation_created(relation), state))["id"] == "good"
    assert not imagewright.calls


def test_each_cloud_gets_its_own_image(context, imagewright):
    imagewright.images = [row("image-5", "five"), row("image-6", "six")]
    state = context.run(context.on.config_changed(), deployed(image(5), image(6)))
    assert (published(state, 5)["id"], published(state, 6)["id"]) == ("five", "six")


def test_an_incomplete_login_is_no_cloud(context, machine):
    login = {key: value for key, value in LOGIN.items() if key != "password"}
    context.run(context.on.config_changed(), deployed(image(login=login)))
    assert "image-5" not in machine.files["clouds.yaml"]


def test_images_that_the_timer_saw_are_published(context, imagewright):
    state = context.run(context.on.config_changed(), deployed(image()))
    with context(context.on.update_status(), state) as manager:
        imagewright.images = [row("image-5", "new")]
        manager.charm.on.image_published.emit()
        relation = manager.charm.model.get_relation("image", 5)
        assert relation.data[manager.charm.unit]["id"] == "new"
        manager.run()
