"""Whether the promises held; every breach in words, so that one run tells all of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chaos.evidence import Record, Story
from chaos.plan import KEEP_FEW, KEEP_MANY, Order
from harness.oracle import Images

Stories = Mapping[tuple[str, int], Story]


@dataclass(frozen=True)
class Evidence:
    orders: Sequence[Order]
    stories: Stories
    history: Sequence[Record]
    images: Mapping[str, Images]  # openstacksdk, by Glance
    dead: Sequence[str]  # job ids
    namespace: str


def breaches(evidence: Evidence) -> list[str]:
    return [
        *_outcomes(evidence.orders, evidence.stories),
        *_children(evidence.stories),
        *_dead(evidence.orders, evidence.dead),
        *_kept_many(evidence),
        *_once_active(evidence),
        *_newest(evidence),
        *_leftovers(evidence),
    ]


def lost(evidence: Evidence) -> int:
    """Jobs that were accepted and have no outcome, children included."""
    known = {order.id for order in evidence.orders} | {job for job, _ in evidence.stories}
    return sum(1 for job in known if (story := evidence.stories.get((job, 0))) is None or story.outcome is None)


def _outcomes(orders: Iterable[Order], stories: Stories) -> Iterable[str]:
    for order in orders:
        story = stories.get((order.id, 0))
        wanted = "failed" if order.spoilt else "succeeded"
        outcome = story.outcome if story else None
        if outcome != wanted:
            said = [event["event"] for event in story.events] if story else []
            why = [event.get("error") for event in story.events if event.get("error")][-3:] if story else []
            yield f"job {order.id} ({order.spec}): {outcome} instead of {wanted}: {said} {why}"


def _children(stories: Stories) -> Iterable[str]:
    """Each upload has exactly the one prune child, and that ended too."""
    children: dict[str, set[str]] = defaultdict(set)
    for story in stories.values():
        if story.run != 0:
            yield f"job {story.job} has a run {story.run}, though nobody requeued it"
        first = story.events[0]
        if first.get("parent"):
            children[first["parent"]].add(story.job)
            if story.outcome != "succeeded":
                yield f"child {story.job} of {first['parent']}: {story.outcome} instead of succeeded"
    for story in stories.values():
        if story.outcome == "succeeded" and story.events[0].get("kind") == "upload" and len(children[story.job]) != 1:
            yield f"upload {story.job} has {len(children[story.job])} children"


def _dead(orders: Iterable[Order], dead: Iterable[str]) -> Iterable[str]:
    spoilt = {order.id for order in orders if order.spoilt}
    yield from (f"{job} is dead, and should not be" for job in sorted(set(dead) - spoilt))
    yield from (f"{job} should be dead, and is not" for job in sorted(spoilt - set(dead)))


def _kept_many(evidence: Evidence) -> Iterable[str]:
    active: Counter[str] = Counter()
    for images in evidence.images.values():
        found = images.find(imagewright_namespace=evidence.namespace)
        active.update(one["imagewright_job"] for one in found if one["status"] == "active")
    for order in evidence.orders:
        if order.spec["keep"] == KEEP_MANY and order.spec["kind"] == "upload" and active[order.id] != 1:
            yield f"job {order.id} keeps {KEEP_MANY} and has {active[order.id]} active images"


def _once_active(evidence: Evidence) -> Iterable[str]:
    ever = Counter(record.job for record in evidence.history if record.was_active)
    for order in evidence.orders:
        wanted = 1 if order.spec["kind"] == "upload" and not order.spoilt else 0
        if ever[order.id] != wanted:
            yield f"job {order.id} ({order.spec['name']}) had {ever[order.id]} images active instead of {wanted}"


def _newest(evidence: Evidence) -> Iterable[str]:
    series: dict[tuple[str, str, str], list[Order]] = defaultdict(list)
    for order in evidence.orders:
        if order.spec["kind"] == "upload" and order.spec["keep"] == KEEP_FEW:
            series[order.series].append(order)
    active: dict[str, set[str]] = defaultdict(set)
    for record in evidence.history:
        if record.status == "active" and not record.deleted:
            active[record.cloud].add(record.job)
    for (name, arch, cloud), orders in series.items():
        newest = {order.id for order in sorted(orders, key=lambda order: order.asked_at)[-KEEP_FEW:]}
        left = {order.id for order in orders} & active[cloud]
        if left != newest:
            yield f"{name} {arch} on {cloud}: {sorted(left)} remain instead of {sorted(newest)}"


def _leftovers(evidence: Evidence) -> Iterable[str]:
    """By Glance's API, for what people see, and by its database."""
    for cloud, images in evidence.images.items():
        for one in images.find(imagewright_namespace=evidence.namespace):
            if one["status"] != "active" or one.get("imagewright_verified") != one["os_hash_value"]:
                yield f"{one['id']} of job {one['imagewright_job']} is left {one['status']} on {cloud}, or not verified"
    for record in evidence.history:
        if not record.deleted and record.status != "active":
            yield f"{record.image} of job {record.job} is left {record.status} in the database of {record.cloud}"
