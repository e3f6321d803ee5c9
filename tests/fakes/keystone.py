"""Keystone, as far as logging in and the catalogue go. Every name and password is good."""

from datetime import UTC, datetime, timedelta

from aiohttp import web

from fakes.state import PROJECT, USER
from fakes.web import TOKEN, base_url, reply

_SERVICES = {"identity": "identity/v3", "compute": "compute/v2.1", "network": "network", "image": "image"}
REGION = "RegionOne"


def _version(request: web.Request) -> dict[str, object]:
    links = [{"rel": "self", "href": f"{base_url(request, 'identity')}/v3/"}]
    return {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": links, "media-types": []}


async def versions(request: web.Request) -> web.Response:
    """`GET /`."""
    return reply({"versions": {"values": [_version(request)]}}, 300)


async def version(request: web.Request) -> web.Response:
    """`GET /v3`."""
    return reply({"version": _version(request)})


async def log_in(request: web.Request) -> web.Response:
    """`POST /v3/auth/tokens`."""
    ends = datetime.now(UTC) + timedelta(hours=1)
    domain = {"id": "default", "name": "Default"}
    catalog = [
        {
            "id": kind,
            "type": kind,
            "name": kind,
            "endpoints": [
                {"id": f"{kind}-{face}", "interface": face, "region": REGION, "region_id": REGION}
                | {"url": base_url(request, path)}
                for face in ("public", "internal")
            ],
        }
        for kind, path in _SERVICES.items()
    ]
    token = {
        "methods": ["password"],
        "user": {"id": USER, "name": "builder", "domain": domain},
        "project": {"id": PROJECT, "name": "images", "domain": domain},
        "roles": [{"id": "member", "name": "member"}],
        "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        "catalog": catalog,
    }
    answer = reply({"token": token}, 201)
    answer.headers["X-Subject-Token"] = TOKEN
    return answer


ROUTES = [
    web.get("/identity/v3", version),
    web.get("/identity/v3/", version),
    web.get("/identity", versions),
    web.get("/identity/", versions),
    web.post("/identity/v3/auth/tokens", log_in),
]
