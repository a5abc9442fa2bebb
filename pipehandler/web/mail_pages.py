"""The pages of one message: as HTML, text, headers and source; its attachments; for paper; as files."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup
from starlette.responses import Response, StreamingResponse

from pipehandler.parse.charset import codec
from pipehandler.store.inbox_errors import InboxError, InboxExpired, KeyRefused, NoSuchMail, NotKept
from pipehandler.store.inbox_values import InboxAttachment, InboxMessage, InboxPage

from .answers import answer, document
from .archive import attached_files, zip_of
from .headers import response_headers, shown_file_name
from .images import MAX_THUMBNAIL, thumbnail_type
from .list_pages import list_of, listing
from .mail_view import MailView
from .message_json import message_json
from .names import cut_within
from .pages import no_inbox, opened, page
from .safe_html import document as mail_document
from .site import Site
from .visit import Visit

_SOURCE = 200_000  # octets of the source that the page shows
_TEXT, _LINES = 200_000, 5_000  # characters and lines of the text that it shows: each line is an element
_LOOKED_INTO = 65_536  # octets of the largest attachment whose text the page shows
_MOST_SHOWN = 12  # attachments before the message; these are read to find out whether they are images
_TEXTS = ("text/plain", "text/csv", "text/calendar", "message/rfc822", "message/delivery-status")
_LONGEST_NAME = 120  # characters of the name of a file that are shown
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


@dataclass(frozen=True, slots=True)
class AttachmentView:
    """An attachment as a line of the page.

    name: as it is safe to read, or "". thumbnail: whether its image may be shown. text: what can be read of it, or "".
    """

    ordinal: int
    name: str
    media_type: str
    size: int
    kept: bool
    thumbnail: bool
    text: str


async def message(site: Site, visit: Visit) -> Response:
    """One message; `view`: html or text, `images`: with remote images."""
    query = visit.request.query_params
    return await _message(site, visit, query.get("view", ""), query.get("images") == "1")


async def headers(site: Site, visit: Visit) -> Response:
    """The header of a message."""
    return await _message(site, visit, "headers", False)


async def raw(site: Site, visit: Visit) -> Response:
    """The source of a message: all of it for programs, its beginning on the page."""
    return await eml(site, visit) if visit.as_json else await _message(site, visit, "raw", False)


async def _message(site: Site, visit: Visit, wanted: str, images: bool) -> Response:
    mine = await opened(site, visit)
    if mine.current is None:
        return no_inbox(visit)
    key, found = await _of_keys(site, mine.kept, _delivery(visit))
    mine = replace(mine, key=key)
    view = await site.mail_views.view(key, found)
    if visit.as_json:
        return answer(message_json(view, visit.lang))
    listed, _ = await list_of(site, visit, mine)
    if site.inboxes.is_merged(mine.inboxes[key]):
        view = replace(view, message=_beside(view.message, listed))
    attachments = [
        await _attachment_view(site, key, found, part, number)
        for number, part in enumerate(part for part in found.attachments if part.ordinal not in view.inline)
    ]
    own: dict[str, Any] = listing(visit, listed) | {
        "view": view,
        "images": images,
        "shown": wanted if wanted in ("text", "headers", "raw") else "html" if view.safe else "text",
        "attachments": attachments[:_MOST_SHOWN],
        "further": attachments[_MOST_SHOWN:],
        "source": "",
        "source_is_cut": False,
    }
    own["lines"], own["text_is_cut"] = _lines(view.text)
    if wanted == "raw":
        own["source"], own["source_is_cut"] = await _source(site, key, found)
    return page(site, visit, "message.html", own, mine)


def _beside(found: InboxMessage, listed: InboxPage) -> InboxMessage:
    """The message with its neighbours in the list beside it: those that its database knows are of one shard."""
    ids = [row.delivery for row in listed.rows]
    place = ids.index(found.delivery) if found.delivery in ids else None
    if place is None:
        return found
    previous, below = ids[place - 1 : place], ids[place + 1 : place + 2]
    return replace(found, previous=next(iter(previous), found.previous), next=next(iter(below), found.next))


def _lines(text: str) -> tuple[list[str], bool]:
    """The lines of the text that the page shows, none if it has nothing to read; and whether there are more."""
    lines = text[:_TEXT].splitlines()
    return (lines[:_LINES] if text.strip() else []), len(text) > _TEXT or len(lines) > _LINES


async def _source(site: Site, key: bytes, found: InboxMessage) -> tuple[str, bool]:
    """The beginning of the source, and whether there is more. Octets beyond UTF-8 are shown as such."""
    octets = bytearray()
    try:
        async for piece in site.inboxes.raw(key, found.delivery):
            octets += piece
            if len(octets) > _SOURCE:
                break
    except NotKept:
        return "", False
    return octets[:_SOURCE].decode("utf-8", "backslashreplace"), len(octets) > _SOURCE


async def _attachment_view(
    site: Site, key: bytes, found: InboxMessage, part: InboxAttachment, number: int
) -> AttachmentView:
    thumbnail, text = False, ""
    media_type = part.content_type.lower()
    if part.kept and number < _MOST_SHOWN:
        if media_type in _IMAGES and part.size <= MAX_THUMBNAIL:
            thumbnail = thumbnail_type(part.size, await _head(site, key, found.delivery, part.ordinal)) is not None
        elif media_type in _TEXTS and part.size <= _LOOKED_INTO:
            text = _decoded(
                await _head(site, key, found.delivery, part.ordinal), part.parameters.get("charset", "utf-8")
            )
    name = cut_within(shown_file_name(part.file_name or ""), _LONGEST_NAME)
    return AttachmentView(part.ordinal, name, part.content_type, part.size, part.kept, thumbnail, text)


async def _head(site: Site, key: bytes, delivery: int, ordinal: int) -> bytes:
    """The first piece of an attachment."""
    pieces = site.inboxes.attachment(key, delivery, ordinal)
    try:
        return await anext(pieces, b"")
    except (NotKept, NoSuchMail):
        return b""


def _decoded(octets: bytes, label: str) -> str:
    """The text of an attachment. Only by our own table of charsets: some of Python's codecs take quadratic time."""
    try:
        return octets.decode(codec(label) or "utf_8", "replace")
    except LookupError:  # one that Python does not have
        return octets.decode("utf_8", "replace")


async def mail_html(site: Site, visit: Visit) -> Response:
    """The HTML of a message, for its frame: a document of its own under the policy of mail."""
    view = await _view(site, visit)
    if view.safe is None:
        raise _nothing()
    images = visit.request.query_params.get("images") == "1"
    text = mail_document(view.safe.with_images if images else view.safe.blocked, view.message.subject or "")
    return document(visit, text, "mail_with_images" if images else "mail")


async def print_page(site: Site, visit: Visit) -> Response:
    """The message for paper, as a page of its own under the policy of mail."""
    view = await _view(site, visit)
    images = visit.request.query_params.get("images") == "1"
    fragment = None if view.safe is None else view.safe.with_images if images else view.safe.blocked
    body = None if fragment is None else Markup(fragment)  # noqa: S704 # made safe by the sanitiser, and the policy holds
    names = [
        cut_within(shown_file_name(part.file_name or ""), _LONGEST_NAME)
        for part in view.message.attachments
        if part.ordinal not in view.inline
    ]
    own = {"view": view, "images": images, "attachments": names, "body": body}
    context = site.templates.common(visit.lang) | own
    text = site.templates.render("print.html", context)
    return document(visit, text, "print_with_images" if images else "print")


async def eml(site: Site, visit: Visit) -> Response:
    """The bytes of a message exactly as they were delivered."""
    key, found = await _found(site, visit)
    name = f"{(found.subject or 'message')[:100]}.eml"
    return await _file(site.inboxes.raw(key, found.delivery), response_headers("attachment", file_name=name))


async def attachment(site: Site, visit: Visit) -> Response:
    """The content of an attachment: as a file, or with `thumbnail` as an image, if its octets are one that may be shown."""
    key, found = await _found(site, visit)
    ordinal = int(visit.request.path_params["ordinal"])
    part = next((each for each in found.attachments if each.ordinal == ordinal), None)
    if part is None:
        raise _nothing()
    pieces = site.inboxes.attachment(key, found.delivery, ordinal)
    if visit.request.query_params.get("thumbnail") == "1":
        if part.size > MAX_THUMBNAIL:
            raise _nothing()
        content = b"".join([piece async for piece in pieces])
        media_type = thumbnail_type(len(content), content)
        if media_type is None:
            raise _nothing()
        return Response(content, headers=response_headers("thumbnail", media_type=media_type))
    return await _file(
        pieces, response_headers("attachment", file_name=part.file_name or f"attachment-{ordinal}"), part.size
    )


async def archive(site: Site, visit: Visit) -> Response:
    """All attachments whose content was kept, as one zip file."""
    key, found = await _found(site, visit)
    parts = [part for part in found.attachments if part.kept]
    if not parts:
        raise _nothing()
    files = attached_files(site.inboxes, key, found.delivery, parts)
    name = f"{(found.subject or 'attachments')[:100]}.zip"
    return await _file(zip_of(files, found.received_at), response_headers("attachment", file_name=name))


async def _file(pieces: AsyncIterator[bytes], headers: dict[str, str], size: int | None = None) -> Response:
    """A file in pieces. The first one is read beforehand, so that what is missing is an error and not an empty file."""
    first = await anext(pieces, b"")

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    if size is not None:
        headers["Content-Length"] = str(size)
    return StreamingResponse(all_pieces(), headers=headers)


async def _found(site: Site, visit: Visit) -> tuple[bytes, InboxMessage]:
    """The key, and the message that it opens."""
    return await _of_keys(site, visit.keys, _delivery(visit))


async def _of_keys(site: Site, keys: Sequence[bytes], delivery: int) -> tuple[bytes, InboxMessage]:
    """A message, and the first key that opens it. Raises what the last key raises, InboxExpired rather than anything else."""
    refusal: InboxError = _nothing()
    for key in keys:
        try:
            return key, await site.inboxes.message(key, delivery)
        except (InboxExpired, KeyRefused, NoSuchMail) as error:
            refusal = refusal if isinstance(refusal, InboxExpired) else error
    raise refusal


async def _view(site: Site, visit: Visit) -> MailView:
    key, found = await _found(site, visit)
    return await site.mail_views.view(key, found)


def _delivery(visit: Visit) -> int:
    return int(visit.request.path_params["delivery"])


def _nothing() -> NoSuchMail:
    from pipehandler.mail.outcome import STORE_UNAVAILABLE

    return NoSuchMail(STORE_UNAVAILABLE, "there is no such thing in this inbox")
