#!/usr/bin/env python3
"""The charm: events end in one reconcile, but for actions, stop and remove. Nothing waits for a job."""

import functools
from pathlib import Path

import ops

import actions
import broker
import cos_agent
import files
import image_relation
import leader
import peers
import queue_counts
import scrub
import situation
import workload

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
                leader.lead(self, found.plan)
        else:
            scrub.scrub(self, found)
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
        peers.tell_clouds(self, leader.digest(plan))

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
        if self._asks() and workload.state(workload.SCHEDULE, "Result") not in ("success", ""):
            troubles.append(ops.WaitingStatus("asking for builds failed: journalctl -u imagewright-schedule"))
        return troubles

    def _asks(self) -> bool:
        plan = self._after.plan
        return self.unit.is_leader() and plan is not None and plan.config.build_interval > 0

    def _first_image(self) -> ops.ActiveStatus | None:
        """While there are related clouds that no image was published of."""
        plan, there = self._after.plan, peers.published(self)
        lacking = [cloud for cloud in files.targets_of(plan) if not there.get(cloud)] if plan else []
        return ops.ActiveStatus(f"waiting for the first image of {', '.join(lacking)}") if lacking else None


if __name__ == "__main__":  # pragma: no cover
    ops.main(ImagewrightCharm)
