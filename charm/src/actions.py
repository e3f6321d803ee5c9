"""The actions: typed parameters in, one call of the program, typed results out. None waits for a job."""

import json
from collections.abc import Callable
from typing import Any

import ops
from pydantic import BaseModel, Field

import clouds
import files
import program
import queue_counts
import results


class Build(BaseModel):
    """Of `build` and `run`."""

    base: str = ""
    force: bool = False


class Upload(BaseModel):
    """Of `upload`."""

    image_id: str = Field(alias="image-id")
    base: str
    cloud: str = ""


class Prune(BaseModel):
    """Of `prune`."""

    cloud: str = ""
    keep: int = 0
    dry_run: bool = Field(False, alias="dry-run")


class ListImages(BaseModel):
    """Of `list-images`."""

    cloud: str = ""
    latest_only: bool = Field(False, alias="latest-only")


class ListFailed(BaseModel):
    """Of `list-failed`."""

    limit: int = 50


class Job(BaseModel):
    """Of `requeue-failed` and `discard-failed`."""

    job_id: str = Field("", alias="job-id")
    all: bool = False


class Pause(BaseModel):
    """Of `pause` and `resume`."""

    kind: str = ""


class Refused(Exception):
    """The action cannot be done; the text says what to do."""


Plan = files.Plan


def build(plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Asks for builds. The timer sees to the base images."""
    given = Build.model_validate(params)
    bases = [given.base] if given.base else plan.config.base_image
    if given.base and given.base not in plan.names:
        raise Refused(f"base {given.base} is not in the option base-image: {', '.join(plan.names)}")
    answers = [program.call(*files.build_words(plan, base, given.force)) for base in bases]
    return _enqueued(answers)


def upload(plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Asks for copies of one image of the build cloud."""
    given = Upload.model_validate(params)
    if given.base not in plan.names:
        raise Refused(f"base {given.base} is not in the option base-image: {', '.join(plan.names)}")
    config = plan.config
    words = ["upload", "--name", plan.names[given.base], "--arch", config.architecture]
    words += ["--from", f"{clouds.BUILD}:{given.image_id}", "--cloud", ",".join(_targets(plan, given.cloud))]
    words += ["--keep", str(config.revision_history_limit), "--deadline", f"{config.job_timeout}m"]
    return _enqueued([program.call(*words)])


def prune(plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Asks for a prune of every image name, or shows the plan of it."""
    given = Prune.model_validate(params)
    keep = given.keep or plan.config.revision_history_limit
    where = _known(plan, given.cloud) if given.cloud else sorted(plan.clouds)
    words = ["--arch", plan.config.architecture, "--cloud", ",".join(where), "--keep", str(keep)]
    words += ["--dry-run"] if given.dry_run else []
    answers = [program.call("prune", "--name", name, *words) for name in plan.names.values()]
    if given.dry_run:
        return {"plans": json.dumps([made for answer in answers for made in answer["plans"]])}
    return _enqueued(answers)


def list_images(plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Shows what is on the clouds; one that is away is left out."""
    given = ListImages.model_validate(params)
    where = _known(plan, given.cloud) if given.cloud else sorted(plan.clouds)
    rows, _ = program.partly("images", "--cloud", ",".join(where))
    rows = [row for row in rows if row["name"] in plan.names.values()]
    rows = results.newest(rows) if given.latest_only else rows
    keys = ["id", "name", "cloud", "arch", "status", "created_at", "verified"]
    return {"count": str(len(rows)), "images": json.dumps([{key: row.get(key) for key in keys} for row in rows])}


def queue_status(_plan: Plan, _params: dict[str, Any]) -> dict[str, str]:
    """Counts jobs and workers."""
    counts = queue_counts.read()
    jobs = program.call("status")
    return {
        "ready": str(counts.ready),
        "in-flight": str(sum(job["state"] in ("running", "waiting") for job in jobs)),
        "failed": str(counts.failed),
        "consumers": str(counts.workers),
        "paused": ",".join(counts.paused),
    }


def list_failed(_plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Shows the jobs that were given up, oldest first."""
    rows = program.call("dead", "list")
    return {"count": str(len(rows)), "jobs": json.dumps(rows[: ListFailed.model_validate(params).limit])}


def requeue_failed(_plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Tries them again."""
    return _settle("requeue", "requeued", params)


def discard_failed(_plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Removes them."""
    return _settle("discard", "discarded", params)


def pause(_plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Keeps every unit from beginning jobs, of one kind or all; what has begun goes on."""
    return _paused("pause", params)


def resume(_plan: Plan, params: dict[str, Any]) -> dict[str, str]:
    """Ends that."""
    return _paused("resume", params)


ON_QUEUE: dict[str, Callable[[Plan, dict[str, Any]], dict[str, str]]] = {
    "build": build,
    "run": build,
    "upload": upload,
    "prune": prune,
    "list-images": list_images,
    "queue-status": queue_status,
    "list-failed": list_failed,
    "requeue-failed": requeue_failed,
    "discard-failed": discard_failed,
    "pause": pause,
    "resume": resume,
}


def run(event: ops.ActionEvent, name: str, plan: Plan | None) -> None:
    """Does an action that needs the queue, and puts its results or the reason of its failure."""
    if plan is None:
        event.fail("the unit is not set up: see its status")
        return
    try:
        event.set_results(ON_QUEUE[name](plan, dict(event.params)))
    except (Refused, program.ProgramError) as error:
        event.fail(str(error))


def _enqueued(answers: list[Any]) -> dict[str, str]:
    ids = [job["id"] for answer in answers for job in answer["jobs"]]
    return {"enqueued": str(len(ids)), "job-ids": ",".join(ids)}


def _paused(verb: str, params: dict[str, Any]) -> dict[str, str]:
    kind = Pause.model_validate(params).kind
    answer = program.call(verb, *(["--kind", kind] if kind else []))
    return {"paused": ",".join(answer["paused"])}


def _settle(verb: str, past: str, params: dict[str, Any]) -> dict[str, str]:
    given = Job.model_validate(params)
    if bool(given.job_id) == given.all:
        raise Refused("give either job-id or all=true")
    program.call("dead", verb, "--all" if given.all else given.job_id)
    return {past: "all" if given.all else given.job_id}


def _known(plan: Plan, cloud: str) -> list[str]:
    if cloud not in plan.clouds:
        raise Refused(f"cloud {cloud} is not known: {', '.join(sorted(plan.clouds))}")
    return [cloud]


def _targets(plan: Plan, cloud: str) -> list[str]:
    found = _known(plan, cloud) if cloud else files.targets_of(plan)
    if not found:
        raise Refused("no cloud is related: integrate image first")
    return found
