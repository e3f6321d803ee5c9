#!/usr/bin/env python3
"""The charm: events end in one reconcile, but for actions, stop and remove. Nothing waits for a job."""

import functools
import hashlib
import logging
from pathlib import Path

import ops

import actions
import broker
import cos_agent
import files
import image_relation
import peers
import program
import queue_counts
import results
import situation
import workload

log = logging.getLogger(__name__)
TRACING = "charm-tracing"
RELATION_EVENTS = ["created", "joined", "changed", "departed", "broken"]


class ImagePublishedEvent(ops.EventBase):
    """The clouds have other images than before; fired by a systemd unit through juju-exec."""


class Events(ops.CharmEvents):
    """Juju's events and ours."""

    image_published = ops.EventSource(ImagePublishedEvent)


class ImagewrightCharm(ops.CharmBase):
    """One unit: a worker. The leader also asks for builds and says which images are current."""

    on = Events()  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]

    def __init__(self, framework: ops.Framework) -> None:
        super().__init__(framework)
        ops.tracing.Tracing(self, tracing_relation_name=TRACING, ca_relation_name="receive-ca-cert")
        on = self.on
        events = [on.install, on.start, on.upgrade_charm, on.config_changed, on.update_status, on.leader_elected]
        events += [on.secret_changed, on.image_published]
        for relation in (broker.RELATION, image_relation.RELATION, cos_agent.RELATION, peers.RELATION):
            events += [getattr(on[relation], f"relation_{name}") for name in RELATION_EVENTS]
        for event in events:
            framework.observe(event, self._reconcile)
        for name in actions.ON_QUEUE:
            framework.observe(on[name].action, self._on_queue_action)
        framework.observe(on.stop, self._on_stop)
        framework.observe(on.remove, self._on_remove)
        framework.observe(on.collect_unit_status, self._on_collect_unit_status)
        framework.observe(on.collect_app_status, self._on_collect_app_status)

    def _reconcile(self, _: ops.EventBase) -> None:
        """Brings machine and relations to what Juju says, from whatever they are."""
        workload.install(Path(self.charm_dir) / "workload/bin")
        self.unit.set_workload_version(workload.version())
        found = situation.read(self)
        if found.config:
            broker.request(self, situation.namespace(self, found.config))
        cos_agent.publish(self)
        if found.plan:
            self._apply(found.plan, found.embedded)
            if self.unit.is_leader():
                self._lead(found.plan)
        image_relation.publish(self, peers.published(self))

    def _apply(self, plan: files.Plan, embedded: bool) -> None:
        """Files and services of this unit."""
        used = workload.read(files.NAMESPACES).split()
        if embedded and plan.namespace not in used:
            used.append(plan.namespace)
        changed = workload.write(files.render(plan, used))
        units = workload.write_units(files.units(plan))
        restart = workload.outdated() or workload.WORKER in units or bool(changed - workload.LIVE)
        workload.run_worker(restart=restart, reload=bool(changed))
        if embedded:
            workload.keep_own_queue()
        else:
            workload.drain_old_queue()
        schedule = self.unit.is_leader() and plan.config.build_interval > 0
        workload.timers(schedule=schedule)
        peers.tell_clouds(self, self._digest(plan))

    def _lead(self, plan: files.Plan) -> None:
        """Says which images are current, and asks for a build when what is wanted has changed."""
        known = files.targets_of(plan)
        if known:
            try:
                seen = results.look(plan.config, self.app.name, known)
            except program.ProgramError as error:
                log.warning("cannot ask the clouds for images: %s", error)
                seen = {}
            peers.set_published(self, results.merge(peers.published(self), seen, known))
        digest = self._digest(plan)
        wanted = plan.config.build_interval > 0 and bool(known)
        if wanted and peers.asked(self) != digest and peers.all_know(self, digest):
            first = not peers.asked(self)
            peers.set_asked(self, digest)
            if not (first and self._all_there(known, len(plan.names))):
                workload.schedule_now()

    def _digest(self, plan: files.Plan) -> str:
        """Of all that makes images different, or puts them elsewhere. No secret is in it."""
        words = [files.build_words(plan, base) for base in plan.names]
        return hashlib.sha256(repr(words).encode()).hexdigest()[:16]

    def _all_there(self, known: list[str], bases: int) -> bool:
        """Whether each cloud has an image of each base already, as at a migration."""
        published = peers.published(self)
        return all(len(published.get(cloud, [])) == bases for cloud in known)

    def _on_queue_action(self, event: ops.ActionEvent) -> None:
        actions.run(event, event.handle.kind.removesuffix("_action").replace("_", "-"), situation.read(self).plan)

    def _on_stop(self, _: ops.StopEvent) -> None:
        workload.stop_worker()

    def _on_remove(self, _: ops.RemoveEvent) -> None:
        workload.remove()

    def _on_collect_unit_status(self, event: ops.CollectStatusEvent) -> None:
        for status in self._troubles():
            event.add_status(status)
        event.add_status(self._first_image() or ops.ActiveStatus())

    def _on_collect_app_status(self, event: ops.CollectStatusEvent) -> None:
        troubles = self._troubles()
        for status in troubles or queue_counts.statuses(self._first_image()):
            event.add_status(status)

    @functools.cached_property
    def _after(self) -> situation.Situation:
        """The situation once the event was handled, for both statuses."""
        return situation.read(self)

    def _troubles(self) -> list[ops.StatusBase]:
        """All that keeps images from coming; the most urgent is shown."""
        if self._after.obstacles:
            return self._after.obstacles
        troubles: list[ops.StatusBase] = []
        if status := situation.waiting_for(self):
            troubles.append(status)
        worker = workload.state(workload.WORKER)
        if worker == "deactivating":
            troubles.append(ops.MaintenanceStatus("restarting the worker"))
        elif worker not in workload.UP:
            troubles.append(ops.BlockedStatus("the worker does not run: journalctl -u imagewright-worker"))
        return troubles

    def _first_image(self) -> ops.ActiveStatus | None:
        return None if peers.published(self) else ops.ActiveStatus("waiting for the first image")


if __name__ == "__main__":  # pragma: no cover
    ops.main(ImagewrightCharm)
