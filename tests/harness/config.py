"""The configuration files of the servers, and the names and passwords that the suites use."""

from collections.abc import Mapping
from pathlib import Path

PASSWORD = "secret"
PAGES = {2: 20}  # cloud2 lists no more than 20 images a page, so that paging is seen with few
PROJECTS = {"images": "builder", "other": "stranger"}  # project: its user with role member


def keystone(folder: Path, token_seconds: int) -> str:
    return f"""[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.db?timeout=30
sqlite_synchronous = false
[identity]
password_hash_rounds = 4
[token]
provider = fernet
expiration = {token_seconds}
allow_expired_window = 0
[fernet_tokens]
key_repository = {folder}/fernet-keys
[credential]
key_repository = {folder}/credential-keys
[fernet_receipts]
key_repository = {folder}/fernet-keys
"""


def glance(
    folder: Path, venv: Path, number: int, port: int, keystone_url: str, options: Mapping[str, str | int]
) -> str:
    """`options` go to [DEFAULT], e.g. `image_size_cap` or `user_storage_quota`."""
    extra = "".join(f"{key} = {value}\n" for key, value in options.items())
    return f"""[DEFAULT]
log_file = {folder}/glance.log
enabled_backends = local:file
enabled_import_methods = [glance-direct,web-download,copy-image,glance-download]
worker_self_reference_url = http://127.0.0.1:{port}
image_cache_dir = {folder}/cache
lock_path = {folder}
transport_url = fake:/
show_multiple_locations = false
api_limit_max = {PAGES.get(number, 1000)}
{extra}
[database]
connection = sqlite:///{folder}/glance.db?timeout=30
sqlite_synchronous = false
[glance_store]
default_backend = local
[local]
filesystem_store_datadir = {folder}/images
filesystem_thin_provisioning = true
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[oslo_concurrency]
lock_path = {folder}
[paste_deploy]
flavor = keystone
config_file = {venv}/etc/glance/glance-api-paste.ini
[keystone_authtoken]
www_authenticate_uri = {keystone_url}
auth_url = {keystone_url}
auth_type = password
username = admin
password = {PASSWORD}
project_name = admin
user_domain_id = default
project_domain_id = default
region_name = cloud{number}
service_token_roles_required = true
"""
