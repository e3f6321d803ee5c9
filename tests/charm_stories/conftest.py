"""Real servers for the charm: Keystone and Glances from the suites' own fixtures, a RabbitMQ with TLS, and a model."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from charm_stories.applications import RabbitMQ
from charm_stories.juju import Model
from harness.certificates import Authority
from harness.openstack import OpenStack
from harness.oracle import Images
from harness.process import scratch_folder
from harness.rabbitmq import Broker, Tls

Deploy = Callable[..., Model]
KEYS = ("auth_url", "password", "project_domain_name", "project_name", "user_domain_name", "username")


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, bytes]]:
    """A private RabbitMQ node that speaks TLS too, and the authority of its certificate."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    started = Broker(tls=Tls(authority))
    try:
        started.start()
        yield started, authority.ca.read_bytes()
    finally:
        started.stop()


@pytest.fixture
def rabbitmq(secure_broker: tuple[Broker, bytes]) -> RabbitMQ:
    """The application rabbitmq-server."""
    return RabbitMQ(*secure_broker)


@pytest.fixture
def login(stack: OpenStack) -> dict[str, str]:
    """The cloud of a consumer, as it writes it to the relation `image`."""
    found = stack.auth()
    return {key: found[key] for key in KEYS}


@pytest.fixture
def deploy(stack: OpenStack) -> Iterator[Deploy]:
    """Makes a model with all options set: images are built in region cloud1, and wanted in region cloud2."""
    models: list[Model] = []
    auth = stack.auth()
    options = {
        "openstack-auth-url": auth["auth_url"],
        "openstack-project-name": auth["project_name"],
        "openstack-project-domain-name": auth["project_domain_name"],
        "openstack-user-name": auth["username"],
        "openstack-user-domain-name": auth["user_domain_name"],
        "openstack-region": "cloud1",
        "image-region": "cloud2",
    }

    def make(**more: Any) -> Model:
        given = {key.replace("_", "-"): value for key, value in more.items()}
        model = Model(scratch_folder("stories"), {**options, **given})
        models.append(model)
        model.state["config"]["openstack-password-secret"] = model.add_secret(password=auth["password"])
        return model

    yield make
    for model in models:
        model.stop()


@pytest.fixture
def build_cloud(stack: OpenStack) -> Images:
    """The oracle's view of the cloud where images are built."""
    return Images(stack.connect("cloud1"))


@pytest.fixture
def edge(stack: OpenStack) -> Images:
    """The oracle's view of the consumer's cloud."""
    return Images(stack.connect("cloud2"))


@pytest.fixture
def disk() -> bytes:
    """Content of an image that is no more than bytes."""
    return b"\x00" * 65536
