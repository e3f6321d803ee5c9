"""Glance, as small as builds and their copies need it: images are in memory."""

from typing import Any

from aiohttp import web

from fakes.state import PROJECT, now
from fakes.web import STATE, base_url, paged, replay, reply

# Not filters of a list.
_CONTROLS = {"limit", "marker", "sort", "sort_key", "sort_dir", "member_status", "tag", "os_hidden", "visibility"}


async def versions(request: web.Request) -> web.Response:
    """`GET /`."""
    links = [{"rel": "self", "href": f"{base_url(request, 'image')}/v2/"}]
    ids = [("v2.16", "CURRENT"), ("v2.0", "SUPPORTED")]
    return reply({"versions": [{"id": name, "status": status, "links": links} for name, status in ids]}, 300)


def _found(request: web.Request) -> dict[str, Any] | None:
    return request.app[STATE].images.get(request.match_info["id"])


def _missing(request: web.Request) -> web.Response:
    return replay("image-missing", image=request.match_info["id"])


async def images(request: web.Request) -> web.Response:
    """`GET /v2/images`: newest first; filtered by any property."""
    query = request.query
    wanted = [(key, value) for key, value in query.items() if key not in _CONTROLS]

    def fits(image: dict[str, Any]) -> bool:
        tagged = all(tag in image["tags"] for tag in query.getall("tag", []))
        return tagged and all(str(image.get(key)) == value for key, value in wanted)

    found = [image for image in reversed(list(request.app[STATE].images.values())) if fits(image)]
    page, more = paged(request, found, 100)
    body: dict[str, Any] = {"images": page, "first": "/v2/images", "schema": "/v2/schemas/images"}
    if more:
        body["next"] = f"/v2/images?{more}"
    return reply(body)


async def image(request: web.Request) -> web.Response:
    """`GET /v2/images/{id}`."""
    found = _found(request)
    return reply(found) if found else _missing(request)


async def create(request: web.Request) -> web.Response:
    """`POST /v2/images`."""
    asked = await request.json()
    if asked.get("id") in request.app[STATE].images:
        return web.Response(status=409, text="409 Conflict: Image ID already exists!", content_type="text/html")
    return reply(request.app[STATE].new_image({"owner": PROJECT, **asked}), 201)


async def upload(request: web.Request) -> web.Response:
    """`PUT /v2/images/{id}/file`."""
    found = _found(request)
    if found is None:
        return _missing(request)
    if found["status"] != "queued":
        text = f"409 Conflict: Image status transition from {found['status']} to saving is not allowed"
        return web.Response(status=409, text=text, content_type="text/html")
    found.update(status="saving", updated_at=now())
    request.app[STATE].fill(found, await request.read())
    return web.Response(status=204)


async def download(request: web.Request) -> web.Response:
    """`GET /v2/images/{id}/file`."""
    data = request.app[STATE].data.get(request.match_info["id"])
    if data is None:
        return web.Response(status=204) if _found(request) else _missing(request)
    return web.Response(body=data, content_type="application/octet-stream")


async def patch(request: web.Request) -> web.Response:
    """`PATCH /v2/images/{id}`: a JSON patch of one level."""
    found = _found(request)
    if found is None:
        return _missing(request)
    for change in await request.json():
        name = change["path"].removeprefix("/").replace("~1", "/").replace("~0", "~")
        if change["op"] == "remove":
            if name not in found:
                return web.Response(status=409, text=f"Property {name} does not exist.", content_type="text/html")
            del found[name]
        elif change["op"] == "replace" and name not in found:
            return web.Response(status=409, text=f"Property {name} does not exist.", content_type="text/html")
        else:
            found[name] = change["value"]
    found["updated_at"] = now()
    return reply(found)


async def delete(request: web.Request) -> web.Response:
    """`DELETE /v2/images/{id}`."""
    found = _found(request)
    if found is None:
        return replay("image-delete-missing", image=request.match_info["id"])
    if found["protected"]:
        return web.Response(status=403, text="Image is protected and cannot be deleted.", content_type="text/html")
    request.app[STATE].drop_image(found["id"])
    return replay("image-deleted")


ROUTES = [
    web.get("/image", versions),
    web.get("/image/", versions),
    web.get("/image/v2/images", images),
    web.post("/image/v2/images", create),
    web.get("/image/v2/images/{id}", image),
    web.patch("/image/v2/images/{id}", patch),
    web.delete("/image/v2/images/{id}", delete),
    web.put("/image/v2/images/{id}/file", upload),
    web.get("/image/v2/images/{id}/file", download),
]
