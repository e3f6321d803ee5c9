"""Transfers slow enough to be met in the middle."""

from typing import Any

from harness import images
from harness.process import wait_for
from harness.site import Site

SIZE = 12 * images.MIB
# Bytes a second. SLOW takes half a minute for SIZE, and is to be let go once it is met. STEADY may be left as it is: it
# takes less than the twenty seconds after which the message of a transfer is put back.
SLOW = 400_000
STEADY = SIZE / 16
PUT = r"^/v2/images/[0-9a-f-]{36}/file$"


def wait_saving(site: Site, name: str, cloud: str = "cloud1", count: int = 1) -> None:
    """Until the cloud itself says that it is receiving the image."""

    def saving() -> bool:
        return sum(one["status"] == "saving" for one in site.cloud(cloud).named(name)) >= count

    wait_for(f"{name} is saving on {cloud}", saving, 60)


def only_active(site: Site, name: str, sha512: str, cloud: str = "cloud1") -> dict[str, Any]:
    """The one image of that name, in any status."""
    (image,) = site.cloud(cloud).named(name)
    assert image["status"] == "active"
    assert image["os_hash_value"] == image["imagewright_verified"] == sha512
    return image
