"""The description of the page's routes for programs (OpenAPI 3.1)."""

from functools import cache
from typing import Any

from starlette.responses import Response

from pipehandler import __version__

from .answers import answer
from .languages import LANGUAGES
from .links_to import PATHS
from .site import Site
from .visit import Visit

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "integer"}
_MAYBE: dict[str, Any] = {"type": ["string", "null"]}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_MAYBE_TIME: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
_MAYBE_NUMBER: dict[str, Any] = {"type": ["integer", "null"]}

SCHEMAS: dict[str, Any] = {
    "Inbox": {
        "lease": _MAYBE_NUMBER,
        "address": _MAYBE,
        "label": _MAYBE,
        "created_at": _TIME,
        "expires_at": _MAYBE_TIME,
        "grace_until": _MAYBE_TIME,
        "life_until": _MAYBE_TIME,
        "kind": {"enum": ["owner", "shared", "viewer"]},
        "owner": {"type": "boolean"},
        "state": {"enum": ["active", "expired"]},
        "deliveries": _MAYBE_NUMBER,
        "octets": _MAYBE_NUMBER,
        "max_messages": _MAYBE_NUMBER,
        "max_octets": _MAYBE_NUMBER,
        "cursor": _TEXT,
    },
    "Row": {
        "delivery": _NUMBER,
        "cursor": _TEXT,
        "subject": _MAYBE,
        "sender_name": _MAYBE,
        "sender_address": _TEXT,
        "recipient": _TEXT,
        "received_at": _TIME,
        "size": _NUMBER,
        "attachments": _NUMBER,
        "state": {"enum": ["parsed", "failed"]},
        "preview": _MAYBE,
        "url": _TEXT,
        "shown": {"type": "object"},
    },
    "Problem": {"error": _TEXT, "message": _TEXT},
}
"""The objects and their properties."""


def _operation(
    summary: str,
    fields: dict[str, Any] | None = None,
    query: dict[str, str] | None = None,
    produces: str = "",
    key: bool = True,
) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{produces}"} if produces else {"type": "object"}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "done", "content": {"application/json": {"schema": schema}}},
            "default": {
                "description": "refused",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if fields is not None:
        body = {"schema": {"type": "object", "properties": fields}}
        operation["requestBody"] = {"content": {"application/json": body, "application/x-www-form-urlencoded": body}}
    if query:
        operation["parameters"] = [
            {"name": name, "in": "query", "description": text, "schema": _TEXT} for name, text in query.items()
        ]
    if not key:
        operation["security"] = []
    return operation


_LIST = {"before": "the cursor of the page, from `older` of the one before", "q": "a search, such as `from:shop code`"}
_OPERATIONS: dict[str, dict[str, Any]] = {
    "inbox": {"get": _operation("The inbox and its newest mail", query=_LIST, produces="Inbox")},
    "create": {
        "post": _operation(
            "Open an inbox; the answer has its `key`, for `Authorization: Bearer KEY`",
            {"name": _TEXT, "domain": _TEXT, "ttl": {**_NUMBER, "description": "seconds"}},
            produces="Inbox",
            key=False,
        )
    },
    "rows": {
        "get": _operation(
            "Rows of the list; with `after`, those after a cursor, oldest first",
            query={"after": "a cursor", "wait": "seconds to wait until there are any, at most 60", **_LIST},
        )
    },
    "events": {
        "get": _operation(
            "The stream (text/event-stream): mail, news, inbox, expired, gone, reset",
            query={"after": "a cursor, as Last-Event-ID"},
        )
    },
    "message": {"get": _operation("One message: text, safe HTML, header, links, code, attachments")},
    "raw": {"get": _operation("Its bytes, exactly as they were delivered")},
    "eml": {"get": _operation("The same")},
    "attachment": {"get": _operation("The content of an attachment")},
    "zip": {"get": _operation("All attachments as a zip file")},
    "remove_mail": {"post": _operation("Delete messages", {"delivery": {"type": "array", "items": _NUMBER}})},
    "extend": {"post": _operation("Add time, or bring the inbox back", {"ttl": _NUMBER}, produces="Inbox")},
    "end": {
        "post": _operation(
            "Delete the inbox with its mail and keys; with `keep`, end it so that it can be brought back",
            {"keep": _TEXT},
        )
    },
    "share": {"post": _operation("Make a key that only reads; the answer has it", {"ttl": _NUMBER})},
    "unshare": {"post": _operation("Revoke all such keys", {})},
}


@cache
def description() -> dict[str, Any]:
    """Return the description."""
    paths: dict[str, Any] = {}
    for name, operations in _OPERATIONS.items():
        path = PATHS[name]
        places = [
            {
                "name": place,
                "in": "path",
                "required": True,
                "schema": {"enum": list(LANGUAGES)} if place == "lang" else _NUMBER,
            }
            for place in ("lang", "delivery", "ordinal")
            if f"{{{place}}}" in path
        ]
        paths.setdefault(path, {"parameters": places}).update(operations)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The inbox page",
            "version": __version__,
            "description": "The pages' own routes, for programs: send `Accept: application/json` or `Authorization: Bearer KEY`.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {name: {"type": "object", "properties": properties} for name, properties in SCHEMAS.items()},
        },
    }


async def openapi(site: Site, visit: Visit) -> Response:
    """The description as JSON."""
    return answer(description())
