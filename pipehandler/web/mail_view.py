"""What the page shows of one message: its safe HTML, its text, its links, the code or the link that it is about."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from pipehandler.store.inbox_values import InboxAttachment, InboxMessage

from . import codes
from .all_inboxes import AllInboxes
from .findings import Findings
from .images import MAX_INLINE, InlineImage
from .links import Link
from .safe_html import Busy, SafeHtml, Sanitiser, TooCostly
from .sanitise import content_ids


@dataclass(frozen=True, slots=True)
class MailView:
    """A message as it is shown.

    safe: its HTML made safe, None without HTML or if that costs too much; costly: which of the two. text: what a person reads
    of it. links: its links with their real hosts. found: the one-time code or the confirmation link, by rule. inline: the
    ordinals of the attachments that its HTML shows in their place, so that they are none to a reader.
    """

    message: InboxMessage
    safe: SafeHtml | None
    costly: bool
    text: str
    links: tuple[Link, ...]
    found: codes.OneTimeCode | codes.ConfirmationLink | None
    inline: frozenset[int] = frozenset()


class _Seen(NamedTuple):
    """What results are kept for: a delivery, as a visitor's key shows it."""

    delivery: int
    key: bytes


class MailViews:
    """Makes views of messages, with a sanitiser that is started with the page."""

    def __init__(self, inboxes: AllInboxes, counts: Counter[str]) -> None:
        self._inboxes = inboxes
        self._counts = counts
        self.sanitiser = Sanitiser()

    async def view(self, key: bytes, message: InboxMessage) -> MailView:
        """Return the view of a message that the key opens. Raises what Inboxes.attachment raises."""
        safe, costly, text = None, False, message.text_body or message.text_from_html or ""
        seen = _Seen(message.delivery, key)
        if message.html_body:
            try:
                kept = self.sanitiser.is_kept(seen)
                inline = {} if kept else await self._inline(key, message)
                safe = await self.sanitiser.clean(message.html_body, inline, key=seen)
            except TooCostly as error:
                costly = True
                self._counts["sanitiser_busy" if isinstance(error, Busy) else "sanitiser_refused"] += 1
                text = text or error.text
            else:
                text = text or safe.text
        links = safe.links if safe else ()
        shown = safe.text if safe and not message.text_body else text
        try:
            found = await self.sanitiser.find(message.subject or "", shown, message.text_body or "", links, key=seen)
        except Busy:
            self._counts["sanitiser_busy"] += 1
            found = Findings(links, None)
        shown_inline = frozenset(part.ordinal for part in message.attachments if safe and _is_inline(part, safe.inline))
        return MailView(message, safe, costly, text, found.links, found.found, shown_inline)

    def forget_mail(self, deliveries: Collection[int]) -> None:
        """Keep nothing of these deliveries, which were deleted."""
        self.sanitiser.forget(lambda seen: seen.delivery in deliveries)

    def forget_inbox(self, key: bytes) -> None:
        """Keep nothing of what this key has shown: its inbox was deleted."""
        self.sanitiser.forget(lambda seen: seen.key == key)

    async def _inline(self, key: bytes, message: InboxMessage) -> dict[str, InlineImage]:
        """Read the parts that the HTML names, as far as they are shown."""
        named = content_ids(message.html_body or "")
        room, found = MAX_INLINE, {}
        for part in message.attachments:
            name = _name(part)
            if name in named and name not in found and part.kept and part.size <= room:
                content = b"".join(
                    [piece async for piece in self._inboxes.attachment(key, message.delivery, part.ordinal)]
                )
                found[name] = InlineImage(content)
                room -= len(content)
        return found


def _name(part: InboxAttachment) -> str:
    return (part.content_id or "").strip("<>")


def _is_inline(part: InboxAttachment, shown: frozenset[str]) -> bool:
    """Whether HTML that shows these Content-IDs is where a part belongs; SQL counts by the same rule (count_attachments)."""
    return part.content_type.lower().startswith("image/") and _name(part) in shown
