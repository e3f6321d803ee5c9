"""Ways to log in at a real Keystone, each for a whole upload."""

from typing import Any

from harness import images
from harness.proxy import Proxy
from harness.site import Site

SIZE = 8 * images.MIB


def uploads(site: Site, change: dict[str, Any], name: str) -> None:
    lone = site.fork(clouds={"cloud1": change})
    lone.worker()
    disk = lone.qcow2()
    lone.client.upload(name, disk)
    (image,) = lone.cloud().active(name)
    assert image["imagewright_verified"] == images.sha512(disk)


def test_an_application_credential_is_enough(site: Site) -> None:
    credential = site.stack.application_credential(f"{site.namespace}-upload")
    uploads(site, {"auth_type": "v3applicationcredential", "auth": credential}, f"by-credential-{site.namespace}")


def test_a_token_is_enough(site: Site) -> None:
    auth = site.stack.auth()
    token = site.stack.connect("cloud1").auth_token
    scope = {key: auth[key] for key in ("auth_url", "project_name", "project_domain_name")}
    uploads(site, {"auth_type": "v3token", "auth": {**scope, "token": token}}, f"by-token-{site.namespace}")


def test_a_transfer_outlives_its_token(site: Site) -> None:
    """The token ends while the bytes flow: what follows is done with a new one."""
    auth = {**site.stack.auth(), "auth_url": site.stack.short_lived_tokens(12)}
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy}, clouds={"cloud1": {"auth": auth}})
        disk = lone.qcow2(SIZE)
        lone.worker()
        proxy.throttle(SIZE / 30)
        lone.client.upload("long-token", disk, seconds=90)
        assert proxy.count("PUT", r"/file$") == 1
        (image,) = lone.cloud().active("long-token")
        assert image["imagewright_verified"] == images.sha512(disk)
