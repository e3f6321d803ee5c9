"""Nova: key pairs, flavors, servers and what is done with them, microversions 2.1 to 2.93."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from fakes.recorded import recorded
from fakes.state import PROJECT, USER, Server, State
from fakes.web import STATE, base_url, paged, replay, reply

_NEWEST = 93
# From here on a server is shown with its flavor inside, and what else that recording has.
_FULL = 79
# Of the recordings of a server: the state, and in ERROR the fault.
_POWER = {"ACTIVE": 1, "SHUTOFF": 4}


def _microversion(request: web.Request) -> int:
    """The minor number that is asked for; an unknown one is refused by the middleware."""
    asked = request.headers.get("OpenStack-API-Version", "").removeprefix("compute").strip()
    asked = asked or request.headers.get("X-OpenStack-Nova-API-Version", "") or "2.1"
    return _NEWEST if asked == "latest" else int(asked.split(".")[1])


@web.middleware
async def versioned(request: web.Request, handler: Any) -> web.StreamResponse:
    """Which microversion it is answered in."""
    if not request.path.startswith("/compute"):
        return await handler(request)
    minor = _microversion(request)
    if minor > _NEWEST:
        text = f"Version 2.{minor} is not supported by the API. Minimum is 2.1 and maximum is 2.{_NEWEST}."
        return reply({"computeFault": {"code": 406, "message": text}}, 406)
    answer: web.StreamResponse = await handler(request)
    answer.headers["OpenStack-API-Version"] = f"compute 2.{minor}"
    answer.headers["X-OpenStack-Nova-API-Version"] = f"2.{minor}"
    answer.headers["Vary"] = "OpenStack-API-Version, X-OpenStack-Nova-API-Version"
    return answer


async def version(request: web.Request) -> web.Response:
    """`GET /v2.1/`."""
    links = [{"rel": "self", "href": f"{base_url(request, 'compute')}/v2.1/"}]
    told = {"id": "v2.1", "status": "CURRENT", "version": f"2.{_NEWEST}", "min_version": "2.1", "links": links}
    return reply({"version": told})


async def flavors(request: web.Request) -> web.Response:
    """`GET /flavors` and `/flavors/detail`."""
    return reply({"flavors": request.app[STATE].flavors})


async def flavor(request: web.Request) -> web.Response:
    """`GET /flavors/{id}`."""
    wanted = request.match_info["id"]
    found = next((one for one in request.app[STATE].flavors if one["id"] == wanted), None)
    if found is None:
        return reply({"itemNotFound": {"code": 404, "message": f"Flavor {wanted} could not be found."}}, 404)
    return reply({"flavor": found})


async def key_pairs(request: web.Request) -> web.Response:
    """`GET /os-keypairs`."""
    return reply({"keypairs": [{"keypair": one} for one in request.app[STATE].key_pairs.values()]})


async def key_pair(request: web.Request) -> web.Response:
    """`GET /os-keypairs/{name}`."""
    name = request.match_info["name"]
    found = request.app[STATE].key_pairs.get(name)
    if found is None:
        return replay("keypair-missing", key=name, user=USER)
    body = recorded("keypair", key=name, user=USER, **found).body
    body["keypair"]["created_at"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000")
    return reply(body)


async def create_key_pair(request: web.Request) -> web.Response:
    """`POST /os-keypairs`: the client brings the public key."""
    state, asked = request.app[STATE], (await request.json())["keypair"]
    name = asked["name"]
    if not asked.get("public_key"):
        return replay("keypair-without-key", key=name)
    if name in state.key_pairs:
        return replay("keypair-exists", key=name)
    digest = hashlib.md5(asked["public_key"].encode()).hexdigest()
    fingerprint = ":".join(digest[at : at + 2] for at in range(0, 32, 2))
    state.key_pairs[name] = {"name": name, "public_key": asked["public_key"], "fingerprint": fingerprint}
    return replay("keypair-created", key=name, user=USER, **state.key_pairs[name])


async def delete_key_pair(request: web.Request) -> web.Response:
    """`DELETE /os-keypairs/{name}`."""
    name = request.match_info["name"]
    if request.app[STATE].key_pairs.pop(name, None) is None:
        return replay("keypair-missing", key=name, user=USER)
    return replay("keypair-deleted")


def _shown(request: web.Request, server: Server) -> dict[str, Any]:
    """A server as it is shown at this microversion."""
    state, minor = request.app[STATE], _microversion(request)
    full = "server-active-2.79" if minor >= _FULL else "server-active"
    kind = {"BUILD": "server-building", "ERROR": "server-error", "SHUTOFF": "server-stopped"}.get(server.status, full)
    values = {
        "server": server.id,
        "name": server.name,
        "base": server.asked["imageRef"],
        "flavor": server.flavor["id"],
        "project": PROJECT,
        "user": USER,
        "address": server.address,
        "mac": "fa:16:3e:" + ":".join(server.id[at : at + 2] for at in (0, 2, 4)),
        "compute": base_url(request, "compute"),
    }
    shown = recorded(kind, **values).body["server"]
    if minor >= _FULL and kind != full:
        shown["flavor"] = recorded(full, **values).body["server"]["flavor"]
    shown.update(created=server.created, updated=server.updated, status=server.status)
    shown.update(metadata=server.asked.get("metadata", {}), key_name=server.asked.get("key_name"))
    shown["OS-EXT-STS:task_state"], shown["OS-EXT-STS:vm_state"] = server.task, server.vm_state
    shown["OS-EXT-STS:power_state"] = _POWER.get(server.status, 0)
    if "security_groups" in shown:
        shown["security_groups"] = [{"name": state.groups[group]["name"]} for group in server.groups]
    if server.fault is not None:
        shown["fault"] = {"code": 500, "created": server.updated, "message": server.fault}
    return shown


async def servers(request: web.Request) -> web.Response:
    """`GET /servers` and `/servers/detail`: newest first; names are regular expressions."""
    query, all_of_them = request.query, list(request.app[STATE].servers.values())
    name, status = query.get("name", ""), query.get("status")
    found = [one for one in reversed(all_of_them) if re.search(name, one.name) and status in (None, one.status)]
    by_id = {one.id: one for one in found}
    page, more = paged(request, [{"id": one.id} for one in found], 1000)
    shown = [_shown(request, by_id[one["id"]]) for one in page]
    detail = request.path.endswith("/detail")
    if not detail:
        shown = [{key: one[key] for key in ("id", "name", "links")} for one in shown]
    body: dict[str, Any] = {"servers": shown}
    if more:
        where = f"{base_url(request, 'compute')}/v2.1/servers{'/detail' if detail else ''}"
        body["servers_links"] = [{"rel": "next", "href": f"{where}?{more}"}]
    return reply(body)


async def server(request: web.Request) -> web.Response:
    """`GET /servers/{id}`."""
    wanted = request.match_info["id"]
    found = request.app[STATE].servers.get(wanted)
    return reply({"server": _shown(request, found)}) if found else replay("server-missing", server=wanted)


def _groups(state: State, asked: dict[str, Any]) -> list[str] | web.Response:
    """The ids of the security groups that are named by id or name."""
    found = []
    for named in asked.get("security_groups") or [{"name": "default"}]:
        name = named["name"]
        ids = [name] if name in state.groups else [key for key, one in state.groups.items() if one["name"] == name]
        if not ids:
            return replay("no-group", asked=name)
        if len(ids) > 1:
            return replay("group-ambiguous", group_name=name)
        found += ids
    return found


def _refusal(state: State, asked: dict[str, Any], found: object) -> web.Response | None:
    """Why there will be no server."""
    networks = {one["id"] for one in state.networks}
    if state.images.get(asked["imageRef"], {}).get("status") != "active":
        return replay("no-image")
    if found is None:
        return replay("no-flavor", asked=asked["flavorRef"])
    for network in asked["networks"] if isinstance(asked.get("networks"), list) else []:
        if network.get("uuid") not in networks:
            return replay("no-network", asked=network.get("uuid"))
    if asked.get("key_name") and asked["key_name"] not in state.key_pairs:
        return replay("no-key")
    if state.quota is not None and len(state.servers) >= state.quota:
        return replay("over-quota", used=len(state.servers), limit=state.quota)
    return None


async def create_server(request: web.Request) -> web.Response:
    """`POST /servers`."""
    state, asked = request.app[STATE], (await request.json())["server"]
    found = next((one for one in state.flavors if one["id"] == asked["flavorRef"]), None)
    refusal = _refusal(state, asked, found)
    groups = _groups(state, asked)
    if refusal is not None or found is None:
        return refusal or replay("no-flavor", asked=asked["flavorRef"])
    if isinstance(groups, web.Response):
        return groups
    made = state.add_server(asked, found, groups)
    return replay(
        "server-created",
        server=made.id,
        compute=base_url(request, "compute"),
        group_name=state.groups[groups[0]]["name"],
    )


async def delete_server(request: web.Request) -> web.Response:
    """`DELETE /servers/{id}`: it is gone a moment later."""
    state, wanted = request.app[STATE], request.match_info["id"]
    found = state.servers.get(wanted)
    if found is None:
        return replay("server-missing", server=wanted)
    if found.guest.fate.delete == "refused":
        return replay("refused-task-state", action="delete", server=wanted, state="migrating")
    if found.guest.fate.delete == "done":
        state.run(state.delete(found))
    return replay("server-deleted")


def _refused(server: Server, action: str) -> web.Response | None:
    """Why an action cannot be now, in the words of the real one."""
    needs = {"os-start": ("stopped",), "os-stop": ("active",), "createImage": ("active", "stopped")}
    if server.vm_state == "building" and action == "os-stop":
        return replay("stop-building", server=server.id)
    word = action.removeprefix("os-")
    if server.vm_state not in needs[action]:
        return replay("refused-vm-state", action=word, server=server.id, state=server.vm_state)
    if server.task is not None:
        return replay("refused-task-state", action=word, server=server.id, state=server.task)
    return None


def _console(server: Server, asked: dict[str, Any]) -> web.Response:
    if server.status == "BUILD":
        return replay("console-building", server=server.id)
    if server.status != "ACTIVE":
        return replay("console-off")
    lines = server.guest.console.splitlines(keepends=True)
    return reply({"output": "".join(lines[-int(asked.get("length") or len(lines)) :])})


async def act(request: web.Request) -> web.Response:
    """`POST /servers/{id}/action`."""
    state, wanted = request.app[STATE], request.match_info["id"]
    (action, asked), *_ = (await request.json()).items()
    found = state.servers.get(wanted)
    if found is None:
        return replay("server-missing", server=wanted)
    if action == "os-getConsoleOutput":
        return _console(found, asked or {})
    if action not in ("os-start", "os-stop", "createImage"):
        return reply({"badRequest": {"code": 400, "message": f"There is no such action: {action}"}}, 400)
    refusal = _refused(found, action)
    if refusal is not None:
        return refusal
    if action == "createImage":
        image = state.begin_snapshot(found, asked["name"], asked.get("metadata", {}))
        kind = "snapshot-asked-2.45" if _microversion(request) >= 45 else "snapshot-asked-2.1"
        return replay(kind, image=image["id"], glance=base_url(request, "image"))
    state.run(state.start(found) if action == "os-start" else state.stop(found))
    return replay("action-accepted")


_AT = "/compute/v2.1"
ROUTES = [
    web.get(_AT, version),
    web.get(f"{_AT}/", version),
    web.get(f"{_AT}/flavors", flavors),
    web.get(f"{_AT}/flavors/detail", flavors),
    web.get(f"{_AT}/flavors/{{id}}", flavor),
    web.get(f"{_AT}/os-keypairs", key_pairs),
    web.post(f"{_AT}/os-keypairs", create_key_pair),
    web.get(f"{_AT}/os-keypairs/{{name}}", key_pair),
    web.delete(f"{_AT}/os-keypairs/{{name}}", delete_key_pair),
    web.get(f"{_AT}/servers", servers),
    web.get(f"{_AT}/servers/detail", servers),
    web.post(f"{_AT}/servers", create_server),
    web.get(f"{_AT}/servers/{{id}}", server),
    web.delete(f"{_AT}/servers/{{id}}", delete_server),
    web.post(f"{_AT}/servers/{{id}}/action", act),
]
