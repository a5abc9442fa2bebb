"""What the page shows of one message: its safe HTML, its text, its links, the code or the link that it is about."""

from collections import Counter
from dataclasses import dataclass

from pipehandler.store.inbox_values import InboxMessage
from pipehandler.store.inboxes import Inboxes

from . import codes
from .images import MAX_INLINE, InlineImage
from .links import Link, links_of_text
from .safe_html import Busy, SafeHtml, Sanitiser, TooCostly
from .sanitise import content_ids


@dataclass(frozen=True, slots=True)
class MailView:
    """A message as it is shown.

    safe: its HTML made safe, None without HTML or if that costs too much; costly: which of the two. text: what a person reads
    of it. links: its links with their real hosts. found: the one-time code or the confirmation link, by rule.
    """

    message: InboxMessage
    safe: SafeHtml | None
    costly: bool
    text: str
    links: tuple[Link, ...]
    found: codes.OneTimeCode | codes.ConfirmationLink | None


class MailViews:
    """Makes views of messages, with a sanitiser that is started with the page."""

    def __init__(self, inboxes: Inboxes, counts: Counter[str]) -> None:
        self._inboxes = inboxes
        self._counts = counts
        self.sanitiser = Sanitiser()

    async def view(self, key: bytes, message: InboxMessage) -> MailView:
        """Return the view of a message that the key opens. Raises what Inboxes.attachment raises."""
        safe, costly, text = None, False, message.text_body or message.text_from_html or ""
        if message.html_body:
            try:
                inline = await self._inline(key, message)
                safe = await self.sanitiser.clean(message.html_body, inline, key=message.message)
            except TooCostly as error:
                costly = True
                self._counts["sanitiser_busy" if isinstance(error, Busy) else "sanitiser_refused"] += 1
                text = text or error.text
            else:
                text = text or safe.text
        links = _distinct((*(safe.links if safe else ()), *links_of_text(message.text_body or "")))
        found = codes.find(message.subject or "", safe.text if safe and not message.text_body else text, links)
        return MailView(message, safe, costly, text, links, found)

    async def _inline(self, key: bytes, message: InboxMessage) -> dict[str, InlineImage]:
        """Read the parts that the HTML names, as far as they are shown."""
        named = content_ids(message.html_body or "")
        room, found = MAX_INLINE, {}
        for part in message.attachments:
            name = (part.content_id or "").strip("<>")
            if name in named and name not in found and part.kept and part.size <= room:
                content = b"".join(
                    [piece async for piece in self._inboxes.attachment(key, message.delivery, part.ordinal)]
                )
                found[name] = InlineImage(content)
                room -= len(content)
        return found


def _distinct(links: tuple[Link, ...]) -> tuple[Link, ...]:
    """Return each link once; the one with a text of its own, which comes first, stays."""
    return tuple({link.url: link for link in reversed(links)}.values())[::-1]
