"""The OpenStack itself, by openstacksdk and OpenSSH alone: what the tests of builds rely on."""

from pathlib import Path
from typing import Any

import pytest

from stack.guest import Guest
from stack.lab import BASE, Lab

pytestmark = pytest.mark.timeout(1800)


def test_a_guest_boots_is_imaged_and_boots_from_its_image(openstack: Lab, tmp_path: Path) -> None:
    cloud: Any = openstack.connect("build")
    first = Guest(cloud, cloud.get_image(BASE).id, tmp_path)
    try:
        first.run("sudo sh -c 'echo seen > /opt/seen; sync'")
        cloud.compute.stop_server(first.server.id)
        cloud.compute.wait_for_server(first.server, status="SHUTOFF", wait=120)
        image = cloud.create_image_snapshot("seen", first.server.id, wait=True, timeout=300)
    finally:
        first.delete()
    try:
        second = Guest(cloud, image.id, tmp_path)
        try:
            assert second.run("cat /opt/seen") == "seen\n"
        finally:
            second.delete()
    finally:
        cloud.delete_image(image.id, wait=True)


def test_the_second_glance_is_another_cloud(openstack: Lab) -> None:
    assert openstack.connect("build").get_image(BASE)
    assert openstack.connect("edge").get_image(BASE) is None
