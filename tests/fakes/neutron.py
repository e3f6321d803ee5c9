"""Neutron: networks, ports, security groups and their rules."""

import uuid
from typing import Any

from aiohttp import web

from fakes.recorded import recorded
from fakes.state import PROJECT, State
from fakes.web import STATE, base_url, paged, replay, reply


def _missing(kind: str, found: str) -> web.Response:
    text = f"{kind} {found} does not exist" if kind == "Security group" else f"{kind} {found} could not be found."
    name = kind.title().replace(" ", "")
    return reply({"NeutronError": {"type": f"{name}NotFound", "message": text, "detail": ""}}, 404)


def _matches(request: web.Request, item: dict[str, Any]) -> bool:
    """Neutron filters by any attribute, exactly; several values of one are alternatives."""
    for key in set(request.query) - {"limit", "marker", "fields", "sort_key", "sort_dir", "page_reverse"}:
        if key in item and str(item[key]) not in request.query.getall(key):
            return False
    return True


def _list(request: web.Request, kind: str, items: list[dict[str, Any]]) -> web.Response:
    page, more = paged(request, [item for item in items if _matches(request, item)], 1000)
    body: dict[str, Any] = {kind: page}
    if more:
        href = f"{base_url(request, 'network')}/v2.0/{kind.replace('_', '-')}?{more}"
        body[f"{kind}_links"] = [{"rel": "next", "href": href}]
    return reply(body)


async def versions(request: web.Request) -> web.Response:
    """`GET /`."""
    links = [{"rel": "self", "href": f"{base_url(request, 'network')}/v2.0/"}]
    return reply({"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})


async def networks(request: web.Request) -> web.Response:
    """`GET /v2.0/networks`."""
    return _list(request, "networks", request.app[STATE].networks)


async def subnets(request: web.Request) -> web.Response:
    """`GET /v2.0/subnets`."""
    return _list(request, "subnets", request.app[STATE].subnets)


def _ports(state: State) -> list[dict[str, Any]]:
    """A server in ERROR that no host took has none."""
    return [
        {
            "id": server.port,
            "name": "",
            "device_id": server.id,
            "device_owner": "compute:nova",
            "status": "ACTIVE" if server.status == "ACTIVE" else "DOWN",
            "project_id": PROJECT,
            "tenant_id": PROJECT,
            "network_id": state.known["network"],
            "security_groups": server.groups,
            "fixed_ips": [{"subnet_id": state.known["subnet"], "ip_address": server.address}],
        }
        for server in list(state.servers.values())
        if server.status != "ERROR"
    ]


async def ports(request: web.Request) -> web.Response:
    """`GET /v2.0/ports`."""
    return _list(request, "ports", _ports(request.app[STATE]))


async def groups(request: web.Request) -> web.Response:
    """`GET /v2.0/security-groups`."""
    return _list(request, "security_groups", list(request.app[STATE].groups.values()))


async def group(request: web.Request) -> web.Response:
    """`GET /v2.0/security-groups/{id}`."""
    wanted = request.match_info["id"]
    found = request.app[STATE].groups.get(wanted)
    return reply({"security_group": found}) if found else _missing("Security group", wanted)


async def create_group(request: web.Request) -> web.Response:
    """`POST /v2.0/security-groups`: names are not unique."""
    asked = (await request.json())["security_group"]
    made = request.app[STATE].add_group(asked.get("name", ""), asked.get("description", ""))
    return reply({"security_group": made}, 201)


async def delete_group(request: web.Request) -> web.Response:
    """`DELETE /v2.0/security-groups/{id}`: refused while a port has it."""
    state, wanted = request.app[STATE], request.match_info["id"]
    if wanted not in state.groups:
        return _missing("Security group", wanted)
    if any(wanted in port["security_groups"] for port in _ports(state)):
        return replay("group-in-use", group=wanted)
    del state.groups[wanted]
    return replay("group-deleted")


async def create_rule(request: web.Request) -> web.Response:
    """`POST /v2.0/security-group-rules`: the same one twice is refused."""
    asked = (await request.json())["security_group_rule"]
    found = request.app[STATE].groups.get(asked["security_group_id"])
    if found is None:
        return _missing("Security group", asked["security_group_id"])
    said = ("direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix")
    for rule in found["security_group_rules"]:
        if all(rule.get(key) == asked.get(key) for key in said):
            return replay("rule-exists", rule=rule["id"])
    made = recorded("rule-created", rule=str(uuid.uuid4()), group=found["id"], project=PROJECT).body
    made["security_group_rule"].update(asked)
    found["security_group_rules"].append(made["security_group_rule"])
    return reply(made, 201)


ROUTES = [
    web.get("/network", versions),
    web.get("/network/", versions),
    web.get("/network/v2.0/networks", networks),
    web.get("/network/v2.0/subnets", subnets),
    web.get("/network/v2.0/ports", ports),
    web.get("/network/v2.0/security-groups", groups),
    web.get("/network/v2.0/security-groups/{id}", group),
    web.post("/network/v2.0/security-groups", create_group),
    web.delete("/network/v2.0/security-groups/{id}", delete_group),
    web.post("/network/v2.0/security-group-rules", create_rule),
]
