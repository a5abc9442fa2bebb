"""The answers: pages and JSON with the headers of their kind, redirects that carry a notice, errors in both forms."""

import gzip
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from .headers import Kind, response_headers
from .links_to import path_of
from .visit import Visit

_SMALLEST = 1024  # octets, below which compression saves nothing
_LEVEL = 4


def document(visit: Visit, text: str, kind: Kind = "page", status: int = 200, compress: bool = True) -> Response:
    """Return a page. compress: not for one that shows a key, or its length would say something about the key."""
    headers = response_headers(kind)
    body = text.encode("utf-8", "replace")
    headers["Vary"] = "Accept-Encoding, Accept, Cookie"
    if compress and len(body) >= _SMALLEST and accepts_gzip(visit.request.headers.get("accept-encoding", "")):
        body = gzip.compress(body, _LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers)


def answer(value: Any, status: int = 200) -> Response:
    """Return JSON."""
    return Response(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), status, response_headers("json"))


def see_other(visit: Visit, page: str, notice: str = "", **parameters: object) -> Response:
    """Return a redirect after a POST (RFC 9110 15.4.4). It leads to the inbox that the request named."""
    if page in ("inbox", "key"):
        parameters = {"inbox": visit.wanted} | parameters
    location = path_of(page, visit.lang, **parameters, notice=notice or None)
    return Response(status_code=303, headers={"Location": location, **_quiet()})


def problem(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as JSON: {"error": code, "message": text}."""
    response = answer({"error": code, "message": text}, status)
    response.headers.update(headers or {})
    return response


def accepts_gzip(field: str) -> bool:
    """Whether Accept-Encoding admits gzip (RFC 9110 12.5.3)."""
    for each in field.split(","):
        coding, _, parameter = each.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return parameter.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _quiet() -> dict[str, str]:
    headers = response_headers("page")
    del headers["Content-Type"]
    return headers
