"""What counts as a revision, what is deleted, and what is never touched."""

import pytest

from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site

DELETE_IMAGE = r"^/v2/images/[0-9a-f-]{36}$"
LIST_IMAGES = r"^/v2/images\?"


def ids(images: list[dict]) -> list[str]:
    return [one["id"] for one in images]


def revisions(site: Site, name: str, count: int) -> list[str]:
    """Uploads and their image ids, oldest first."""
    for _ in range(count):
        site.client.upload(name, site.qcow2(), keep=count)
    found = [one["id"] for one in site.cloud().active(name) if one.get("imagewright_self") == one["id"]]
    assert len(found) == count
    return found


def test_queued_images_are_no_revisions_and_never_the_latest(site: Site) -> None:
    """Dead leftovers newer than the good image neither push it out nor stand in for it."""
    (good,) = revisions(site, "dead-newer", 1)
    dead = [site.cloud().create("dead-newer", architecture="x86_64")["id"] for _ in range(3)]
    assert site.client.latest("dead-newer") == good
    site.client.upload("dead-newer", site.qcow2(), keep=2)
    active = ids(site.cloud().active("dead-newer"))
    assert len(active) == 2
    assert active[0] == good
    assert site.client.latest("dead-newer") == active[1]
    assert set(dead) <= set(ids(site.cloud().named("dead-newer")))


def test_nothing_is_printed_as_latest_when_only_dead_images_are_there(site: Site) -> None:
    site.cloud().create("only-dead", architecture="x86_64")
    assert site.client.latest("only-dead") == ""
    assert site.client.latest("no-such-name") == ""


def test_any_status_prints_a_dead_image_too(site: Site) -> None:
    dead = site.cloud().create("any-status", architecture="x86_64")["id"]
    assert site.client.latest("any-status", "--any-status") == dead


def test_a_deactivated_image_is_no_revision(site: Site) -> None:
    old = revisions(site, "deactivated", 2)
    site.cloud("cloud1", "admin").deactivate(old[1])
    result = site.client.prune("deactivated", 1)
    assert [one["id"] for one in result["kept"]] == [old[0]]
    assert site.client.latest("deactivated") == old[0]
    assert set(ids(site.cloud().named("deactivated"))) == set(old)


def test_a_protected_old_image_neither_fails_the_upload_nor_pushes_out_another(site: Site) -> None:
    old = revisions(site, "protected", 3)
    site.cloud().change(old[0], protected=True)
    (job,) = site.client.upload("protected", site.qcow2(), keep=2)
    active = ids(site.cloud().active("protected"))
    assert old[0] in active
    assert old[1] not in active
    assert active[-2:] == [old[2], site.client.status(job)["result"]["image_id"]]
    (prune,) = site.client.status(job)["children"]
    done = site.client.status(prune)
    assert done["state"] == "succeeded"
    rules = {one["id"]: one["rule"] for one in done["result"]["kept"]}
    assert "protected" in rules[old[0]]
    site.cloud().change(old[0], protected=False)
    site.client.prune("protected", 2)
    assert len(site.cloud().active("protected")) == 2


def test_an_image_in_use_is_kept_with_the_reason_and_tried_again_later(site: Site) -> None:
    """Ceph answers 409 for the parent of a clone; that fails neither the upload nor the prune."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        old = revisions(lone, "in-use", 2)
        fault = proxy.fail("DELETE", old[0], 409, times=100, body=b"image is in use")
        (job,) = lone.client.upload("in-use", lone.qcow2(), keep=1)
        assert fault.met >= 1
        (prune,) = lone.client.status(job)["children"]
        done = lone.client.status(prune)
        assert done["state"] == "succeeded"
        assert old[0] in {one["id"] for one in done["result"]["kept"]}
        assert [one["id"] for one in done["result"]["deleted"]] == [old[1]]
        proxy.forget()
        later = lone.client.prune("in-use", 1)
        assert [one["id"] for one in later["deleted"]] == [old[0]]


def test_images_that_others_own_are_never_touched(site: Site) -> None:
    theirs, admin = site.cloud("cloud1", "other"), site.cloud("cloud1", "admin")
    shared = theirs.add("foreign-owner", visibility="shared", architecture="x86_64")
    theirs.share(shared["id"], site.cloud().project_id)
    site.cloud().accept(shared["id"])
    public = admin.add("foreign-owner", visibility="public", architecture="x86_64")
    community = theirs.add("foreign-owner", visibility="community", architecture="x86_64")
    ours = revisions(site, "foreign-owner", 2)
    assert site.client.latest("foreign-owner") == ours[1]
    result = site.client.prune("foreign-owner", 1)
    assert [one["id"] for one in result["deleted"]] == [ours[0]]
    assert theirs.get(shared["id"]) is not None
    assert theirs.get(community["id"]) is not None
    assert admin.get(public["id"]) is not None
    others = {shared["id"], public["id"], community["id"]}
    assert not others & {one["id"] for one in result["kept"]}


def test_unstamped_images_of_our_own_project_are_not_touched_unless_adopted(site: Site) -> None:
    by_hand = site.cloud().add("by-hand", architecture="x86_64")["id"]
    new = revisions(site, "by-hand", 2)
    result = site.client.prune("by-hand", 1)
    assert [one["id"] for one in result["deleted"]] == [new[0]]
    assert site.cloud().get(by_hand) is not None


def test_adopted_images_count_and_go(site: Site) -> None:
    by_hand = site.cloud().add("adopt-me", architecture="x86_64")["id"]
    site.client.upload("adopt-me", site.qcow2(), keep=1)
    assert site.cloud().get(by_hand) is None
    assert len(site.cloud().active("adopt-me")) == 1


def test_a_copied_stamp_is_no_stamp(site: Site) -> None:
    """Nova copies the properties of a base image into snapshots; such an image is a stranger's."""
    real = revisions(site, "copied-stamp", 1)[0]
    stamps = {key: value for key, value in (site.cloud().get(real) or {}).items() if key.startswith("imagewright_")}
    copy = site.cloud().add("copied-stamp", architecture="x86_64", **stamps)["id"]
    site.client.upload("copied-stamp", site.qcow2(), keep=1)
    assert site.cloud().get(copy) is not None
    assert site.cloud().get(real) is None


def test_a_name_is_matched_exactly(site: Site) -> None:
    near = [site.client.upload(name, site.qcow2())[0] for name in ("exact-1", "exactly", "exact")]
    site.client.prune("exact", 1)
    site.client.prune("exact*", 1)
    site.client.prune("exact?1", 1)
    for name, job in zip(("exact-1", "exactly", "exact"), near, strict=True):
        assert [one["imagewright_job"] for one in site.cloud().active(name)] == [job]


def test_an_image_marked_to_be_kept_stays(site: Site) -> None:
    old = revisions(site, "marked", 3)
    site.cloud().change(old[0], imagewright_keep="true")
    result = site.client.prune("marked", 1)
    assert [one["id"] for one in result["deleted"]] == [old[1]]
    assert ids(site.cloud().active("marked")) == [old[0], old[2]]


def test_the_newest_image_stays_even_when_it_is_the_only_one(site: Site) -> None:
    (only,) = revisions(site, "only", 1)
    result = site.client.prune("only", 1)
    assert result["deleted"] == []
    assert [one["id"] for one in result["kept"]] == [only]
    site.client.run("prune", "--name", "only", "--cloud", "cloud1", "--keep", "0", code=64)
    assert ids(site.cloud().active("only")) == [only]


def test_pruning_one_arch_leaves_the_others_alone(site: Site) -> None:
    for arch in ("amd64", "amd64", "arm64", "arm64"):
        site.client.upload("arch-prune", site.qcow2(), arch=arch)
    result = site.client.prune("arch-prune", 1, "--arch", "arm64")
    assert len(result["deleted"]) == 1
    left = [one["architecture"] for one in site.cloud().active("arch-prune")]
    assert sorted(left) == ["aarch64", "x86_64", "x86_64"]


@pytest.mark.parametrize("status", [500, 400, 403])
def test_an_error_while_listing_deletes_nothing(site: Site, status: int) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        name = f"list-error-{status}"
        old = revisions(site, name, 3)
        lone.worker()
        proxy.fail("GET", LIST_IMAGES, status, times=10_000)
        (prune,) = lone.client.json("prune", "--name", name, "--cloud", "cloud1", "--keep", "1")["jobs"]

        def tried() -> bool:
            return proxy.count("GET", LIST_IMAGES) >= 1 and lone.client.status(prune["id"])["state"] != "queued"

        wait_for("the prune was tried", tried)
        assert proxy.count("DELETE") == 0
        assert ids(site.cloud().active(name)) == old


def test_an_error_on_the_second_page_deletes_nothing(site: Site) -> None:
    """The two active images are on the first page, so a worker that forgave the error would delete one."""
    with Proxy(site.stack.cloud("cloud2").port) as proxy:
        lone = site.fork(proxies={"cloud2": proxy}, policy={"adopt": ["*"]})
        cloud = site.cloud("cloud2")
        for _ in range(20):
            cloud.create("two-pages", architecture="x86_64")
        good = [cloud.add("two-pages", architecture="x86_64")["id"] for _ in range(2)]
        lone.worker()
        fault = proxy.fail("GET", r"marker=", 503, times=10_000, headers={"Retry-After": "1"})
        (prune,) = lone.client.json("prune", "--name", "two-pages", "--cloud", "cloud2", "--keep", "1")["jobs"]
        wait_for("the second page was asked for", lambda: fault.met >= 1)
        assert proxy.count("DELETE") == 0
        proxy.forget()
        result = lone.client.succeeded(prune["id"], 60)["result"]
        (deleted,) = ids(result["deleted"])
        assert deleted in good
        assert ids(cloud.active("two-pages")) == [one for one in good if one != deleted]


def test_a_dry_run_prints_the_rule_for_each_image_and_deletes_nothing(site: Site) -> None:
    old = revisions(site, "dry", 3)
    site.cloud().create("dry", architecture="x86_64")
    before = site.cloud().named("dry")
    plan = site.client.json("prune", "--name", "dry", "--cloud", "cloud1", "--keep", "1", "--dry-run")
    text = site.client.run("prune", "--name", "dry", "--cloud", "cloud1", "--keep", "1", "--dry-run").out
    for image in old:
        assert image in text
        assert image in str(plan)
    assert site.cloud().named("dry") == before


def test_leftovers_of_ended_jobs_go_after_the_grace_time(site: Site) -> None:
    """A queued image with a true stamp of an ended job is swept; one of a job that nobody knows is only reported."""
    lone = site.fork(policy={"leftover_grace": "1s"})
    lone.worker()
    (job,) = lone.client.upload("leftover", lone.qcow2())
    (image,) = lone.cloud().active("leftover")
    stamps = {key: value for key, value in image.items() if key.startswith("imagewright_")}
    left = stamped(lone, "leftover", stamps)
    unknown = stamped(lone, "leftover", {**stamps, "imagewright_job": "0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55"})
    stranger = lone.cloud().create("leftover", architecture="x86_64")["id"]

    def swept() -> bool:
        lone.client.prune("leftover", 5)
        return lone.cloud().get(left) is None

    wait_for(f"the leftover of {job} is gone", swept, 30, every=0.5)
    assert lone.cloud().get(unknown) is not None
    assert lone.cloud().get(stranger) is not None
    assert ids(lone.cloud().active("leftover")) == [image["id"]]


def stamped(site: Site, name: str, stamps: dict[str, str]) -> str:
    """A queued image that carries a true stamp."""
    made = site.cloud().create(name, architecture="x86_64", **stamps)["id"]
    site.cloud().change(made, imagewright_self=made)
    return made


def test_fresh_leftovers_are_left_alone(site: Site) -> None:
    site.client.upload("fresh", site.qcow2())
    (image,) = site.cloud().active("fresh")
    stamps = {key: value for key, value in image.items() if key.startswith("imagewright_")}
    left = stamped(site, "fresh", stamps)
    site.client.prune("fresh", 1)
    assert site.cloud().get(left) is not None


def test_two_installations_that_share_a_project_and_a_name_leave_each_other_alone(site: Site) -> None:
    """Each counts what is stamped with its own namespace."""
    lone = site.fork()
    lone.worker()
    jobs = [one.client.upload("shared-name", one.qcow2(), keep=1)[0] for one in (site, lone, site, lone)]
    for one, job in zip((site, lone, site, lone), jobs, strict=True):
        one.client.tree_ended(job)
    left = [image["imagewright_job"] for image in site.cloud().named("shared-name")]
    assert sorted(left) == sorted(jobs[2:])
