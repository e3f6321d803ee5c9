"""What only the leader does: it says which images are current, and asks for builds when what is wanted has changed."""

import hashlib
import logging

import ops

import files
import peers
import program
import results
import workload

log = logging.getLogger(__name__)


def lead(charm: ops.CharmBase, plan: files.Plan) -> None:
    """Publishes to the units, and asks for a build once every unit knows what it needs for it."""
    known = files.targets_of(plan)
    seen = _look(charm, plan, known)
    peers.set_published(charm, results.merge(peers.published(charm), seen, known))
    if known and plan.config.build_interval > 0 and peers.all_know(charm, digest(plan)):
        _ask(charm, plan, seen)


def digest(plan: files.Plan, clouds: bool = True) -> str:
    """Of all that makes images different and, with `clouds`, puts them elsewhere. No secret is in it."""
    words = [files.build_words(plan, base, clouds=clouds) for base in plan.names]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _ask(charm: ops.CharmBase, plan: files.Plan, seen: results.Seen) -> None:
    """Other options need a build; another cloud only if an image is lacking there, as none is at a migration."""
    options, known = digest(plan, clouds=False), files.targets_of(plan)
    before, asked = peers.asked(charm)
    new = [cloud for cloud in known if cloud not in asked]
    if before == options and not new:
        return
    if not before or before == options:
        if not seen.answered.issuperset(new) and new != known:
            seen = _look(charm, plan, new)  # clouds that are away do not keep others from their first image
        if not seen.answered.issuperset(new):
            return
        if all(len(seen.images.get(cloud, [])) == len(plan.names) for cloud in new):
            peers.set_asked(charm, options, known)
            return
    if workload.state(workload.SCHEDULE) != "activating":  # what runs has read the script of before
        peers.set_asked(charm, options, known)
        workload.schedule_now()


def _look(charm: ops.CharmBase, plan: files.Plan, known: list[str]) -> results.Seen:
    try:
        return results.look(plan.config, charm.app.name, known)
    except program.ProgramError as error:
        log.warning("cannot ask the clouds for images: %s", error)
        return results.Seen()
