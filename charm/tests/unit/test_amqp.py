"""The relation `amqp`."""

import base64

from conftest import amqp, deployed, image
from ops import testing


def test_access_is_asked_for_in_both_places(context):
    relation = amqp()
    state = context.run(context.on.relation_created(relation), deployed(image(), relation))
    wanted = {"username": "imagewright-imagewright", "vhost": "imagewright"}
    assert wanted.items() <= dict(state.get_relation(9).local_unit_data).items()
    assert wanted.items() <= dict(state.get_relation(9).local_app_data).items()


def test_all_hosts_that_are_ready_are_used(context, machine):
    bags = {
        0: {"hostname": "10.0.0.2", "password": "p@ss"},
        1: {"hostname": "10.0.0.1", "password": "p@ss"},
        2: {"hostname": "10.0.0.3"},
    }
    relation = testing.Relation("amqp", id=9, remote_units_data=bags)
    context.run(context.on.relation_changed(relation), deployed(image(), relation))
    login = "imagewright-imagewright:p%40ss"
    urls = [f"amqp://{login}@10.0.0.{host}:5672/imagewright" for host in (1, 2)]
    assert machine.files["queue"] == ",".join(urls) + "\n"


def test_tls_is_used_with_the_brokers_authority(context, machine):
    ca = base64.b64encode(b"PEM of the CA").decode()
    relation = amqp(hostname="h", password="x", ssl_port="5671", ssl_ca=ca)
    context.run(context.on.relation_changed(relation), deployed(image(), relation))
    assert machine.files["queue"].startswith("amqps://imagewright-imagewright:x@h:5671/imagewright?cacertfile=")
    assert machine.files["broker-ca.pem"] == "PEM of the CA"


def test_an_authority_that_is_not_encoded_is_taken_as_it_is(context, machine):
    relation = amqp(hostname="h", password="x", ssl_port="5671", ssl_ca="-----BEGIN")
    context.run(context.on.relation_changed(relation), deployed(image(), relation))
    assert machine.files["broker-ca.pem"] == "-----BEGIN"


def test_a_virtual_address_takes_the_place_of_the_hosts(context, machine):
    relation = amqp(hostname="h", password="x", clustered="true", vip="10.9.9.9")
    context.run(context.on.relation_changed(relation), deployed(image(), relation))
    assert "@10.9.9.9:5672" in machine.files["queue"]


def test_jobs_of_the_time_before_the_broker_are_worked_off(context, machine):
    context.run(context.on.config_changed(), deployed(image()))
    assert "drain_old_queue" not in machine.calls
    assert "keep_own_queue" in machine.calls
    relation = amqp(hostname="h", password="x")
    context.run(context.on.relation_changed(relation), deployed(image(), relation))
    assert "drain_old_queue" in machine.calls
    assert "restart" in machine.calls


def test_the_old_queue_is_worked_off_in_every_namespace_that_it_had(context, machine):
    context.run(context.on.config_changed(), deployed(image()))
    context.run(context.on.config_changed(), deployed(image(), config={"namespace": "second"}))
    relation = amqp(hostname="h", password="x")
    for namespace in ("third", "fourth"):
        options = {"namespace": namespace}
        context.run(context.on.relation_changed(relation), deployed(image(), relation, config=options))
    assert "for namespace in imagewright second; do" in machine.files["drain"]


def test_the_namespace_is_the_vhost(context, machine):
    relation = amqp(hostname="h", password="x")
    context.run(context.on.config_changed(), deployed(image(), relation, config={"namespace": "shared"}))
    assert machine.files["queue"].endswith("/shared\n")
    assert "IMAGEWRIGHT_NAMESPACE=shared\n" in machine.files["environment"]
