"""What all services share: how an answer is sent, the token, request ids, and the faults that are set."""

import asyncio
import json
import uuid
from collections import Counter
from typing import Any

from aiohttp import web

from fakes.recorded import Answer, recorded
from fakes.state import State

STATE: web.AppKey[State] = web.AppKey("state", State)
SEEN: web.AppKey["Counter[str]"] = web.AppKey("seen", Counter)
TOKEN = "token-of-the-fake"


def send(answer: Answer) -> web.Response:
    """An answer as it was recorded."""
    headers = dict(answer.headers)
    kind = headers.pop("Content-Type", "application/json").split(";")[0]
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    if answer.status == 204:
        return web.Response(status=204, headers=headers)
    return web.Response(status=answer.status, text=text, content_type=kind, headers=headers)


def replay(name: str, /, **values: Any) -> web.Response:
    """A recording, with its placeholders filled in."""
    return send(recorded(name, **values))


def reply(body: Any, status: int = 200) -> web.Response:
    """A JSON document."""
    return web.json_response(body, status=status)


def base_url(request: web.Request, service: str) -> str:
    """Where a service is, as the client sees it."""
    return f"{request.scheme}://{request.host}/{service}"


def paged(request: web.Request, items: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], str | None]:
    """The page that `limit` and `marker` ask for, and the query of the next one."""
    limit = min(int(request.query.get("limit", most)), most)
    ids = [item["id"] for item in items]
    marker = request.query.get("marker")
    first = ids.index(marker) + 1 if marker in ids else 0
    page = items[first : first + limit]
    if not page or first + limit >= len(items):
        return page, None
    return page, str(request.rel_url.update_query(marker=page[-1]["id"], limit=limit).query_string)


def _is_open(request: web.Request) -> bool:
    """Versions are told to everybody, as is how to log in."""
    path = request.path
    return path.startswith("/identity") or path.rstrip("/") in ("/image", "/network", "/network/v2.0", "/compute/v2.1")


@web.middleware
async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Faults, the token, and what every answer carries."""
    state = request.app[STATE]
    request.app[SEEN][f"{request.method} {request.path}"] += 1
    request_id = f"req-{uuid.uuid4()}"
    for fault in list(state.faults.http):
        if fault.takes(request.method, request.path_qs):
            if fault.stall:
                await asyncio.sleep(3600)
            if fault.after:
                await handler(request)
            headers = {**fault.headers, "X-Openstack-Request-Id": request_id}
            return web.Response(status=fault.status, text=fault.body, headers=headers)
    if not _is_open(request) and request.headers.get("X-Auth-Token") != TOKEN:
        error = {"error": {"code": 401, "title": "Unauthorized", "message": "The request requires authentication."}}
        return web.json_response(error, status=401)
    answer: web.StreamResponse = await handler(request)
    if not answer.prepared:
        answer.headers["X-Openstack-Request-Id"] = request_id
    return answer
