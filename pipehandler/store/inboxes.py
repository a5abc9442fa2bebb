"""What the inbox page asks of PostgreSQL: one method for each SQL function of sql/code/57_inbox.sql, which have comments.

A key is 32 random octets. The database knows only its SHA-256, and every method that takes one reaches what that key opens
and nothing else; the role in pipehandler_web reads no table. Every method raises StoreError if the database fails, and the
errors of inbox_errors.py where it refuses. Rows that cannot be read are left out and logged (store/readable.py).
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256

from ..mail.outcome import STORE_UNAVAILABLE
from .errors import NO_DATA_FOUND, QUERY_CANCELED, RAISE_EXCEPTION, StoreError
from .inbox_errors import (
    BadCursor,
    InboxError,
    InboxExpired,
    KeyRefused,
    LifetimeReached,
    NameRefused,
    NameTaken,
    NetworkClosed,
    NoSuchMail,
    NotKept,
    QuotaReached,
    SearchTooSlow,
    TooManyInboxes,
)
from .inbox_search import search
from .inbox_statements import PIECE, Statements, readable_rows
from .inbox_values import Inbox, InboxAttachment, InboxDomain, InboxMessage, InboxPage, InboxRow

__all__ = [
    "PIECE",
    "BadCursor",
    "Inbox",
    "InboxAttachment",
    "InboxDomain",
    "InboxError",
    "InboxExpired",
    "InboxMessage",
    "InboxPage",
    "InboxRow",
    "Inboxes",
    "KeyRefused",
    "LifetimeReached",
    "NameRefused",
    "NameTaken",
    "NetworkClosed",
    "NoSuchMail",
    "NotKept",
    "QuotaReached",
    "SearchTooSlow",
    "TooManyInboxes",
]

_COLUMNS = """i.lease, i.address, i.label, i.created_at, i.expires_at, i.grace_until, i.life_until, i.kind, i.deliveries,
       i.octets, i.max_messages, i.max_octets, i.cursor, i.state"""
_INBOX = f"SELECT {_COLUMNS} FROM pipehandler.inbox_of(%s::bytea) AS i"  # noqa: S608 # constant
_INBOXES = f"SELECT i.place, {_COLUMNS} FROM pipehandler.inboxes_of(%s::bytea[]) AS i"  # noqa: S608 # constant
_OPEN = "SELECT pipehandler.open_inbox(%s::bytea, %s::text, %s::text, %s::interval, %s::text, %s::inet)"
_DOMAINS = "SELECT r.domain, r.max_ttl, r.max_life, r.grace FROM pipehandler.inbox_domains() AS r"
_ROW = """r.delivery, r.cursor, r.subject, r.sender_name, r.sender_address, r.received_at, r.size, r.attachments, r.state,
       r.preview, r.recipient"""
_PAGE = f"SELECT {_ROW}, r.newest FROM pipehandler.inbox_page(%s::bytea, %s::text, %s::integer, %s::jsonb) AS r"  # noqa: S608 # constant
_AFTER = f"SELECT {_ROW} FROM pipehandler.inbox_after(%s::bytea, %s::text, %s::integer) AS r"  # noqa: S608 # constant
_MESSAGE = """
SELECT m.id AS delivery, m.cursor, m.message::text, m.recipient, m.extension, m.sender, m.subject, m.from_list,
       m.sender_list, m.reply_to_list, m.to_list, m.cc_list, m.date, m.date_offset, m.received_at, m.size, m.state,
       m.error, m.preview, m.text_body, m.text_from_html, m.html_body, m.is_cut, m.header, m.message_id, m.list_id,
       m.list_unsubscribe, m.list_unsubscribe_post, m.authentication, m.defects, m.report, m.is_automatic, m.has_raw,
       m.attachments, m.previous, m.next
  FROM pipehandler.inbox_message(%s::bytea, %s::bigint) AS m
"""
_ATTACHMENT = "SELECT pipehandler.inbox_attachment(%s::bytea, %s::bigint, %s::integer, %s::bigint, %s::integer)"
_ATTACHMENTS = (
    "SELECT a.ordinal, a.content FROM pipehandler.inbox_attachments(%s::bytea, %s::bigint, %s::integer[]) AS a"
)
_RAW = "SELECT pipehandler.inbox_raw(%s::bytea, %s::bigint, %s::bigint, %s::integer)"
_EXTEND = "SELECT pipehandler.extend_inbox(%s::bytea, %s::interval)"
_EXPIRE = "SELECT pipehandler.expire_inbox(%s::bytea)"
_REMOVE = "SELECT pipehandler.remove_inbox(%s::bytea)"
_REMOVE_MAIL = "SELECT pipehandler.remove_inbox_mail(%s::bytea, %s::bigint[])"
_SHARE = "SELECT pipehandler.share_inbox(%s::bytea, %s::bytea, %s::interval)"
_UNSHARE = "SELECT pipehandler.unshare_inbox(%s::bytea)"
_SHARD_OF = "SELECT pipehandler.shard_of_inbox(%s::text, %s::text)"
_ARRIVALS = "SELECT a.cursor, a.lease FROM pipehandler.arrivals_after(%s::text, %s::integer) AS a"
_WAITING = "SELECT pipehandler.arrivals_waiting()"
_NOW = "SELECT pipehandler.cursor_now()"


class Inboxes:
    """A pool of connections for the inbox page; `open_pool` before the first call, `close` after the last one.

    conninfo: of a role in pipehandler_web. connections: at most so many. search_timeout: seconds for one search.
    """

    def __init__(self, conninfo: str, connections: int = 4, search_timeout: float = 2.0) -> None:
        self._statements = Statements(conninfo, connections, search_timeout)

    async def open_pool(self) -> None:
        """Start connecting; a database that is away is reported by the calls that need it."""
        await self._statements.open_pool()

    async def close(self) -> None:
        """End all connections."""
        await self._statements.close()

    async def move(self, conninfo: str) -> None:
        """Connect to another place from now on: the database has moved."""
        await self._statements.move(conninfo)

    # Inboxes.

    async def open(
        self,
        key: bytes,
        domain: str,
        name: str | None,
        ttl: timedelta,
        label: str | None = None,
        client: str | None = None,
    ) -> Inbox:
        """Open an inbox for a new key. name: the local part; None: a random one. client: the visitor's IP address.

        Raises NameRefused, NameTaken, NetworkClosed and TooManyInboxes.
        """
        await self._statements.write(_OPEN, key, domain, name, ttl, label, client)
        return await self.inbox(key)

    async def inbox(self, key: bytes) -> Inbox:
        """What the key opens, also in its time of grace. Raises KeyRefused."""
        for inbox in await self._statements.read(_INBOX, [key], Inbox):
            return inbox
        raise StoreError(STORE_UNAVAILABLE, "the row of an inbox cannot be read")

    async def inboxes(self, keys: Sequence[bytes]) -> Mapping[bytes, Inbox]:
        """What the keys open, by the key; those that open nothing are left out."""
        found: dict[bytes, Inbox] = {}
        for columns in await self._statements.rows(_INBOXES, [list(keys)]):
            place = columns.pop("place")
            for inbox in readable_rows([columns], Inbox):
                found[keys[place - 1]] = inbox
        return found

    async def domains(self) -> tuple[InboxDomain, ...]:
        """The domains whose addresses visitors get, the first one unless they choose."""
        return tuple(await self._statements.read(_DOMAINS, [], InboxDomain))

    async def extend(self, key: bytes, ttl: timedelta) -> Inbox:
        """Let it last for `ttl` more, at most until Inbox.life_until, or bring it back for `ttl`. For the owner.

        Raises KeyRefused, LifetimeReached, and NameRefused if its domain is not issued any more.
        """
        await self._statements.write(_EXTEND, key, ttl)
        return await self.inbox(key)

    async def expire(self, key: bytes) -> Inbox:
        """End it now; `extend` brings it back in its time of grace. For the owner. Raises KeyRefused."""
        await self._statements.write(_EXPIRE, key)
        return await self.inbox(key)

    async def remove(self, key: bytes) -> int:
        """Remove its mail, and the keys to it, for good. For the owner. Returns how many deliveries. Raises KeyRefused."""
        return int(await self._statements.write(_REMOVE, key))

    async def remove_mail(self, key: bytes, deliveries: Sequence[int]) -> int:
        """Remove these deliveries for good, at most 1,000; returns how many there were. For the owner.

        Raises KeyRefused, InboxExpired, and NoSuchMail if the inbox has none of them.
        """
        return int(await self._statements.write(_REMOVE_MAIL, key, list(deliveries)))

    async def share(self, key: bytes, new_key: bytes, ttl: timedelta | None = None) -> Inbox:
        """Let a new key read it, for `ttl` or as long as it exists. For the owner. Returns what the new key opens.

        Raises KeyRefused, InboxExpired and QuotaReached.
        """
        await self._statements.write(_SHARE, key, sha256(new_key).digest(), ttl)
        return await self.inbox(new_key)

    async def unshare(self, key: bytes) -> int:
        """Revoke all keys of `share`; returns how many. For the owner. Raises KeyRefused."""
        return int(await self._statements.write(_UNSHARE, key))

    # Mail.

    async def page(
        self, key: bytes, before: str | None = None, max_rows: int = 50, wanted: str | None = None
    ) -> InboxPage:
        """A page of at most `max_rows` (200) rows before a cursor. wanted: a search as in inbox_search.py, which looks at
        the newest 1,000 before the cursor.

        Raises KeyRefused, InboxExpired, BadCursor and SearchTooSlow.
        """
        terms = search(wanted) if wanted else None
        parameters = [key, before and _cursor(before), max_rows, None if terms is None else json.dumps(terms)]
        try:
            *rows, last = await self._statements.rows(_PAGE, parameters, limited=terms is not None)
        except StoreError as error:
            if terms is not None and error.sqlstate == QUERY_CANCELED:
                raise SearchTooSlow(error.outcome, "the search took too long", error.sqlstate) from error
            raise
        for columns in rows:
            del columns["newest"]
        return InboxPage(tuple(readable_rows(rows, InboxRow)), last["cursor"], last["newest"])

    async def after(self, key: bytes, cursor: str, max_rows: int = 100) -> list[InboxRow]:
        """The rows after a cursor, in the order of the stream. Raises KeyRefused, InboxExpired and BadCursor."""
        return await self._statements.read(_AFTER, [key, _cursor(cursor), max_rows], InboxRow)

    async def message(self, key: bytes, delivery: int) -> InboxMessage:
        """One delivery with its message. Raises KeyRefused, InboxExpired and NoSuchMail."""
        (columns,) = await self._statements.rows(_MESSAGE, [key, delivery])
        attachments = columns.pop("attachments")
        columns["attachments"] = tuple(
            readable_rows(attachments if isinstance(attachments, list) else [], InboxAttachment)
        )
        for message in readable_rows([columns], InboxMessage):
            return message
        raise NoSuchMail(STORE_UNAVAILABLE, f"the row of delivery {delivery} cannot be read", NO_DATA_FOUND)

    async def attachment(self, key: bytes, delivery: int, ordinal: int) -> AsyncIterator[bytes]:
        """The content of an attachment, in pieces of PIECE octets. Raises KeyRefused, InboxExpired, NoSuchMail and NotKept,
        with the first piece or, if the key is revoked meanwhile, with a later one."""
        async for piece in self._statements.pieces(_ATTACHMENT, [key, delivery, ordinal]):
            yield piece

    async def small_attachments(self, key: bytes, delivery: int, ordinals: Sequence[int]) -> Mapping[int, bytes]:
        """The content of several attachments, by ordinal, which have at most PIECE octets together. Raises KeyRefused,
        InboxExpired, and NoSuchMail if one is not there or was not kept."""
        rows = await self._statements.rows(_ATTACHMENTS, [key, delivery, list(ordinals)])
        contents = {row["ordinal"]: bytes(row["content"]) for row in rows}
        if missing := set(ordinals) - contents.keys():
            raise NoSuchMail(
                STORE_UNAVAILABLE, f"delivery {delivery} has no content of attachment {min(missing)}", NO_DATA_FOUND
            )
        return contents

    async def raw(self, key: bytes, delivery: int) -> AsyncIterator[bytes]:
        """The bytes of a delivery exactly as they were delivered, in the same way."""
        async for piece in self._statements.pieces(_RAW, [key, delivery]):
            yield piece

    # What needs no key; none of it is content.

    async def shard_of(self, name: str, domain: str) -> int:
        """The shard on which an inbox with this name, which a visitor chose, is opened. Only for shards."""
        return int(await self._statements.value(_SHARD_OF, [name, domain]))

    async def arrivals_after(self, cursor: str, max_rows: int = 1000) -> list[tuple[str, int | None]]:
        """The cursors and leases of the deliveries after a cursor. Raises BadCursor."""
        rows = await self._statements.rows(_ARRIVALS, [cursor, max_rows], quick=True)
        return [(row["cursor"], row["lease"]) for row in rows]

    async def arrivals_waiting(self) -> bool:
        """Whether something is committed that an older transaction still holds back."""
        return bool(await self._statements.value(_WAITING, quick=True))

    async def cursor_now(self) -> str:
        """The position after everything that is visible."""
        return str(await self._statements.value(_NOW, quick=True))


def _cursor(text: str) -> str:
    """A cursor as the database can take it. Raises BadCursor: no text has a NUL, and the database would not be asked."""
    if "\0" in text:
        raise BadCursor(STORE_UNAVAILABLE, "a cursor has no NUL", RAISE_EXCEPTION)
    return text
