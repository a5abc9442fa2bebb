"""What belongs to no inbox: the way to a language, pages that are the same for everyone, the manifest, the state of health."""

import gzip
import string
from urllib.parse import quote

from starlette.responses import Response

from . import keys
from .answers import accepts_gzip, answer
from .headers import response_headers
from .languages import LANGUAGES
from .pages import page, refused
from .site import Site
from .visit import Visit


async def root(site: Site, visit: Visit) -> Response:
    """Lead to the first page in the visitor's language."""
    headers = {"Location": f"/{visit.preferred}/", "Vary": "Accept-Language, Cookie", "Cache-Control": "no-store"}
    return Response(status_code=302, headers=headers)


async def language(site: Site, visit: Visit) -> Response:
    """Keep the visitor's language, and show the same page in it."""
    chosen = visit.field("language")
    if chosen not in LANGUAGES:
        return refused(
            site, visit, 400, "bad_request", f"language is {chosen[:40]!r}; expected one of {' '.join(LANGUAGES)}"
        )
    rest = visit.field("path")
    if not rest.startswith("/") or rest.startswith("//") or not rest.isprintable() or "\\" in rest:
        rest = "/"
    location = quote(f"/{chosen}{rest}", safe=string.punctuation)  # a path is shown decoded, a header field is ASCII
    response = Response(status_code=303, headers={"Location": location, "Cache-Control": "no-store"})
    response.headers.append("Set-Cookie", keys.language_cookie(chosen, visit.secure))
    return response


async def abuse(site: Site, visit: Visit) -> Response:
    """Where to report an address that was used to harm someone."""
    return page(site, visit, "abuse.html", {})


async def health(site: Site, visit: Visit) -> Response:
    """Whether mail can be shown, for a load balancer: 200 or 503. Of several shards one is enough: it has visitors, too."""
    up, listening = site.databases.up, site.databases.listening
    shards = {"shards": up} if site.databases.count > 1 else {}
    return answer({"database": all(up), "listening": listening, **shards}, 200 if any(up) else 503)


async def manifest(site: Site, visit: Visit) -> Response:
    """The web app manifest in the visitor's language."""
    text = site.templates.render("manifest.webmanifest", site.templates.common(visit.lang))
    headers = response_headers("json") | {"Content-Type": "application/manifest+json", "Cache-Control": "max-age=86400"}
    return Response(text.encode(), headers=headers)


async def fixed(site: Site, visit: Visit) -> Response:
    """A page that is the same for everyone, with its ETag."""
    path = visit.request.url.path
    found = site.fixed.get(path) or site.fixed.get(path.rstrip("/"))
    if found is None:
        return refused(site, visit, 404, "not_found", "there is nothing under this path")
    headers = response_headers("page") | {
        "Content-Type": found.media_type,
        "Cache-Control": "public, max-age=300",
        "ETag": found.etag,
        "Vary": "Accept-Encoding",
    }
    if found.is_unchanged(visit.request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    body = found.body
    if accepts_gzip(visit.request.headers.get("accept-encoding", "")):
        # The same content, so the tag stays valid for comparisons, but it is not octet for octet the same (RFC 9110 8.8.1).
        headers |= {"Content-Encoding": "gzip", "ETag": f"W/{found.etag}"}
        body = gzip.compress(body, 6, mtime=0)
    return Response(body, headers=headers)
