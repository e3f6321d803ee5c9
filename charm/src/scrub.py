"""What goes from a unit that cannot be set up now: credentials of what is gone, and the work that needs them."""

import ops
import yaml

import broker
import clouds
import image_relation
import situation
import workload


def scrub(charm: ops.CharmBase, found: situation.Situation) -> None:
    """Leaves all else as it was, so that a wrong option stops nobody's work."""
    before = workload.written()
    kept = _without_old_logins(charm, found, _without_old_broker(charm, found, before))
    if not before or kept == before:
        stop = False
    else:
        workload.write(kept)
        stop = clouds.BUILD not in _logins(kept) or "queue" not in kept
        if stop:
            workload.stop_worker()  # jobs of a cloud that it does not know would be given up
        elif workload.state(workload.WORKER) in workload.UP:
            workload.run_worker(restart=False, reload=True)
    if stop or not charm.unit.is_leader():
        workload.no_schedule()


def _without_old_broker(charm: ops.CharmBase, found: situation.Situation, files: dict[str, str]) -> dict[str, str]:
    option = "amqp-uri-secret"
    there = broker.related(charm) or (option in charm.config and option not in found.unreadable)
    if there or not files.get("queue", "").startswith("amqp"):
        return files
    return {name: text for name, text in files.items() if name not in ("queue", "broker-ca.pem")}


def _without_old_logins(charm: ops.CharmBase, found: situation.Situation, files: dict[str, str]) -> dict[str, str]:
    def gone(option: str) -> bool:
        return option not in charm.config or option in found.unreadable

    if gone("script-secret-id"):
        files = {name: text for name, text in files.items() if not name.startswith("secrets/")}
    known = set(image_relation.clouds(charm)) | (set() if gone("openstack-password-secret") else {clouds.BUILD})
    logins = _logins(files)
    if known.issuperset(logins):
        return files
    return {**files, "clouds.yaml": clouds.render({name: logins[name] for name in logins if name in known})}


def _logins(files: dict[str, str]) -> dict[str, dict[str, object]]:
    return yaml.safe_load(files.get("clouds.yaml", "{clouds: {}}"))["clouds"]
