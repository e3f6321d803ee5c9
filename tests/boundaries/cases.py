"""The jobs, and what must be there in the end, whatever happened on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import images
from harness.signing import Mirror, SigningKey
from harness.site import Site
from harness.transfers import only_active

END_SECONDS = 150.0  # a take-over waits for 45 s, a prune that met a busy image for a rung of the ladder


@dataclass(frozen=True)
class Case:
    """One job in an installation without other jobs. `name` begins with what the policy adopts."""

    site: Site
    name: str

    def upload(self, *source: str | Path) -> str:
        """Beside an older image, which is one too many afterwards."""
        self.site.cloud().add(self.name, architecture="x86_64")
        words = ["--name", self.name, "--arch", "amd64", "--cloud", "cloud1", "--keep", "1"]
        return self.site.client.run("upload", *words, *source).out.strip()

    def ended(self, job: str) -> None:
        self.site.client.tree_ended(job, END_SECONDS)


Check = Callable[[], None]
Ask = Callable[[Case], tuple[str, Check]]


def upload_file(case: Case) -> tuple[str, Check]:
    disk = case.site.qcow2()
    job = case.upload("--file", disk)
    return job, lambda: _one_image(case, job, images.sha512(disk))


def upload_url(case: Case) -> tuple[str, Check]:
    disk = case.site.qcow2()
    url = case.site.files.add(f"{case.name}.qcow2", disk)
    job = case.upload("--url", url, "--sha256", images.sha256(disk))
    return job, lambda: _one_image(case, job, images.sha512(disk))


def upload_cloud(case: Case) -> tuple[str, Check]:
    disk = case.site.qcow2()
    made = case.site.cloud("cloud2").add_file(case.name, disk, disk_format="qcow2")
    job = case.upload("--from", f"cloud2:{made['id']}")
    return job, lambda: _one_image(case, job, images.sha512(disk))


def prune(case: Case) -> tuple[str, Check]:
    """Three images: unstamped ones count by when they were made, to the second, and then by their ids."""
    made = [case.site.cloud().add(case.name, bytes([number]), architecture="x86_64") for number in range(3)]
    newest = max(made, key=lambda one: (one["created_at"], one["id"]))["id"]
    words = ["--name", case.name, "--cloud", "cloud1", "--keep", "1"]
    job = case.site.client.run("prune", *words).out.strip()

    def check() -> None:
        case.ended(job)
        assert [(one["id"], one["status"]) for one in case.site.cloud().named(case.name)] == [(newest, "active")]

    return job, check


@dataclass(frozen=True)
class BaseImage:
    """`folder` has `keyring.gpg`, which workers of the case trust."""

    key: SigningKey
    folder: Path

    def __call__(self, case: Case) -> tuple[str, Check]:
        case.site.cloud().add(case.name, architecture="x86_64")
        mirror = Mirror(case.site.files, case.name)
        disk = images.small_qcow2(self.folder / f"{case.name}.qcow2", size=128 * 1024)
        mirror.publish(self.key, "noble", "amd64", disk)
        words = ["--arch", "amd64", "--base", "noble", "--cloud", "cloud1", "--mirror", mirror.url, "--name", case.name]
        job = case.site.client.run("base-image", *words, "--keep", "1").out.strip()
        return job, lambda: _one_image(case, job, images.sha512(disk))


CASES: dict[str, Ask] = {
    "upload-file": upload_file,
    "upload-url": upload_url,
    "upload-cloud": upload_cloud,
    "prune": prune,
}


def _one_image(case: Case, job: str, sha512: str) -> None:
    case.ended(job)
    image = only_active(case.site, case.name, sha512)
    assert image["imagewright_job"] == job
    assert image["imagewright_self"] == image["id"]
    assert case.site.client.status(job)["result"]["image_id"] == image["id"]
