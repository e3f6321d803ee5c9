"""The clouds.yaml of a unit: the cloud where images are built, and those that are related."""

import ops
import yaml

import image_relation
from config import Config

BUILD = "build"
"""What the cloud is called where images are built."""


def build_cloud(config: Config, password: str) -> dict[str, str]:
    """The login of the cloud where images are built."""
    return {
        "auth_url": config.openstack_auth_url,
        "project_name": config.openstack_project_name,
        "project_domain_name": config.openstack_project_domain_name,
        "username": config.openstack_user_name,
        "user_domain_name": config.openstack_user_domain_name,
        "password": password,
    }


def entries(charm: ops.CharmBase, config: Config, password: str) -> dict[str, dict[str, object]]:
    """Every cloud, by name, as clouds.yaml has it."""
    found: dict[str, dict[str, object]] = {
        BUILD: _entry(build_cloud(config, password), config.openstack_region),
    }
    for name, login in image_relation.clouds(charm).items():
        found[name] = _entry(login, config.image_region)
    return found


def render(clouds: dict[str, dict[str, object]]) -> str:
    """clouds.yaml; it holds passwords."""
    return yaml.safe_dump({"clouds": clouds}, sort_keys=True)


def _entry(login: dict[str, str], region: str) -> dict[str, object]:
    entry: dict[str, object] = {"auth": login, "identity_api_version": 3}
    if region:
        entry["region_name"] = region
    return entry
