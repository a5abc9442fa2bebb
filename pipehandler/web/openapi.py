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

_FLAG: dict[str, Any] = {"type": "boolean"}
_ANY: dict[str, Any] = {}


def _of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_INBOX: dict[str, Any] = {
    "lease": _MAYBE_NUMBER,
    "address": _MAYBE,
    "label": _MAYBE,
    "created_at": _TIME,
    "expires_at": _MAYBE_TIME,
    "grace_until": _MAYBE_TIME,
    "life_until": _MAYBE_TIME,
    "kind": {"enum": ["owner", "shared", "viewer"]},
    "owner": _FLAG,
    "state": {"enum": ["active", "expired"]},
    "deliveries": _MAYBE_NUMBER,
    "octets": _MAYBE_NUMBER,
    "max_messages": _MAYBE_NUMBER,
    "max_octets": _MAYBE_NUMBER,
    "cursor": {**_TEXT, "description": "the position of now in the stream"},
    "now": {**_TIME, "description": "the time of the server"},
}
_LISTED: dict[str, Any] = {
    "rows": {**_list_of(_of("Row")), "description": "the newest first"},
    "older": {**_MAYBE, "description": "`before` of the next page; null on the last"},
    "newest": {**_TEXT, "description": "where `after` and the stream go on after this page"},
    "partial": {**_FLAG, "description": "whether mail is missing, because a part of the database does not answer"},
}
_MAILBOXES = _list_of({"type": "object"})
SCHEMAS: dict[str, dict[str, Any]] = {
    "Inbox": _INBOX,
    "NewInbox": {"key": {**_TEXT, "description": "for `Authorization: Bearer KEY`; it is shown this once"}, **_INBOX},
    "InboxWithRows": _INBOX | _LISTED,
    "List": _LISTED,
    "Rows": {
        "rows": {**_list_of(_of("Row")), "description": "in the order of the stream, the oldest first"},
        "text": {**_TEXT, "description": "how many there are, as a sentence; empty if there are none"},
        "cursor": {**_TEXT, "description": "`after` of the next request"},
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
        "attachments": {**_NUMBER, "description": "without images that belong to the HTML"},
        "state": {"enum": ["parsed", "failed"]},
        "preview": _MAYBE,
        "url": _TEXT,
        "shown": {"type": "object", "description": "what the page shows, in the language of the path"},
    },
    "Message": {
        **dict.fromkeys(("delivery", "size"), _NUMBER),
        **dict.fromkeys(("date_offset", "previous", "next"), _MAYBE_NUMBER),
        **dict.fromkeys(("cursor", "message", "recipient", "sender", "eml"), _TEXT),
        **dict.fromkeys(
            ("extension", "subject", "error", "preview", "text_body", "text_from_html", "html_body"), _MAYBE
        ),
        **dict.fromkeys(("message_id", "list_id"), _MAYBE),
        **dict.fromkeys(("from_list", "sender_list", "reply_to_list", "to_list", "cc_list"), _MAILBOXES),
        "date": _MAYBE_TIME,
        "received_at": _TIME,
        "state": {"enum": ["parsed", "failed"]},
        "is_cut": {**_FLAG, "description": "a body has more than 2 MiB, and only its beginning is here"},
        "header": _list_of(_list_of(_TEXT)),
        "list_unsubscribe": _list_of(_TEXT),
        "list_unsubscribe_post": _FLAG,
        "authentication": {"type": "object"},
        "defects": _list_of({"type": "object"}),
        "report": {"type": ["object", "null"]},
        "is_automatic": _FLAG,
        "has_raw": _FLAG,
        "attachments": _list_of(_of("Attachment")),
        "text": {**_TEXT, "description": "what a person reads"},
        "html": {**_MAYBE, "description": "made safe, without remote images"},
        "remote_images": _NUMBER,
        "html_is_too_costly": _FLAG,
        "links": _list_of(_of("Link")),
        "code": {**_MAYBE, "description": "the one-time code"},
        "confirmation_link": _MAYBE,
    },
    "Attachment": {
        **dict.fromkeys(("ordinal", "size"), _NUMBER),
        **dict.fromkeys(("part", "content_type", "url"), _TEXT),
        **dict.fromkeys(("content_id", "disposition", "content_location", "content_description"), _MAYBE),
        "file_name": {**_MAYBE, "description": "as the sender wrote it: it may hide or turn letters"},
        "safe_file_name": {**_TEXT, "description": "a name to show, and to save under"},
        "inline": {**_FLAG, "description": "whether it is an image within the HTML"},
        "kept": {**_FLAG, "description": "whether its content is stored"},
        "parameters": {"type": "object"},
    },
    "Link": {
        **dict.fromkeys(("text", "url", "host", "ascii_host"), _TEXT),
        "mismatch": {**_FLAG, "description": "its text names another host"},
        "mixed_scripts": {**_FLAG, "description": "its host may look like another"},
    },
    "Key": {"key": _TEXT},
    "Done": {"done": _TEXT},
    "Removed": {"removed": _NUMBER},
    "Problem": {"error": _TEXT, "message": _TEXT},
}
"""The objects and their properties, each of which is always there."""


def _operation(
    summary: str,
    fields: dict[str, Any] | None = None,
    query: dict[str, str] | None = None,
    produces: str | tuple[str, ...] = "",
    media_type: str = "application/json",
    status: int = 200,
    key: bool = True,
) -> dict[str, Any]:
    """Describe an operation. produces: the name of its answer, or of several."""
    schema: dict[str, Any] = _ANY
    if produces:
        schemas = [_of(name) for name in ([produces] if isinstance(produces, str) else produces)]
        schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            str(status): {"description": "done", "content": {media_type: {"schema": schema}}},
            "default": {
                "description": "refused; with Retry-After where it may succeed later",
                "content": {"application/json": {"schema": _of("Problem")}},
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
_FILE = "application/octet-stream"
_OPERATIONS: dict[str, dict[str, Any]] = {
    "inbox": {"get": _operation("The inbox and its newest mail", query=_LIST, produces="InboxWithRows")},
    "create": {
        "post": _operation(
            "Open an inbox",
            {"name": _TEXT, "domain": _TEXT, "ttl": {**_NUMBER, "description": "seconds"}},
            produces="NewInbox",
            status=201,
            key=False,
        )
    },
    "rows": {
        "get": _operation(
            "With `after`, the rows after a cursor (Rows); without it, a page of the list (List)",
            query={"after": "a cursor", "wait": "seconds to wait until there are any, at most 60", **_LIST},
            produces=("Rows", "List"),
        )
    },
    "events": {
        "get": _operation(
            "The stream: mail (a Row), news, inbox (an Inbox), expired (the same), gone, reset, and beat after silence",
            query={"after": "a cursor, as Last-Event-ID"},
            media_type="text/event-stream",
        )
    },
    "message": {
        "get": _operation("One message: text, safe HTML, header, links, code, attachments", produces="Message")
    },
    "raw": {"get": _operation("Its bytes, exactly as they were delivered", media_type=_FILE)},
    "eml": {"get": _operation("The same", media_type=_FILE)},
    "attachment": {"get": _operation("The content of an attachment", media_type=_FILE)},
    "zip": {"get": _operation("All attachments as a zip file", media_type=_FILE)},
    "remove_mail": {
        "post": _operation("Delete messages", {"delivery": _list_of(_NUMBER)}, produces="Removed"),
    },
    "extend": {"post": _operation("Add time, or bring the inbox back", {"ttl": _NUMBER}, produces="Inbox")},
    "end": {
        "post": _operation(
            "Delete the inbox with its mail and keys (Done); with `keep`, end it so that it can be brought back (Inbox)",
            {"keep": _TEXT},
            produces=("Done", "Inbox"),
        )
    },
    "share": {"post": _operation("Make a key that only reads", {"ttl": _NUMBER}, produces="Key", status=201)},
    "unshare": {"post": _operation("Revoke all such keys", {}, produces="Done")},
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
            "schemas": {
                name: {"type": "object", "properties": properties, "required": list(properties)}
                for name, properties in SCHEMAS.items()
            },
        },
    }


async def openapi(site: Site, visit: Visit) -> Response:
    """The description as JSON."""
    return answer(description())
