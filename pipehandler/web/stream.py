"""The stream of an inbox for a browser (Server-Sent Events, WHATWG HTML 9.2), and the request that waits for mail.

The `id` of an event is the cursor after its delivery; a browser that reconnects sends it back as Last-Event-ID, and goes on
exactly there. The events and their data (JSON):

    mail     a row of the list (rows.row_json)
    news     {"count": 2, "text": "2 new messages"}, after the rows of one wake, for the status line and the title
    inbox    the inbox (rows.inbox_json), at the start and whenever it was changed; if `deliveries` is lower than what the page
             has, mail was removed, and the page loads its rows again
    expired  the inbox (rows.inbox_json): it has ended and can be brought back; the stream goes on
    gone     {}: the key opens nothing any more; the stream ends, and the browser must not come back
    reset    {}: the cursor is of another cluster, or from before a restore; the stream ends, and the page loads again
    beat     {}: nothing else was said for a while; a browser that hears nothing for longer has lost its stream unnoticed

A stream is raw ASGI: Starlette's StreamingResponse needs twice the memory for each client. What it keeps is a cursor. A client
that does not read makes its own `send` wait, and nothing else.
"""

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from starlette.types import Receive, Send

from pipehandler.store.errors import StoreError
from pipehandler.store.inbox_errors import BadCursor, InboxExpired, KeyRefused
from pipehandler.store.inbox_values import Inbox, InboxRow

from .all_inboxes import AllInboxes
from .hub import Waiter
from .rows import arrivals_text, inbox_json, row_json

HEARTBEAT = 15.0
"""Seconds of silence after which a stream says so: proxies end what is idle for a minute."""

_ROWS = 100  # rows that are fetched at once
_RETRY = b"retry: 2000\n\n"  # milliseconds until a browser reconnects
_BEAT = b"event: beat\ndata: {}\n\n"
_AGAIN = 1.0  # seconds until the next try while the database is away

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would collect the events
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Stream:
    """One stream: `run` sends events until the client leaves, the key opens nothing any more, or the program stops."""

    def __init__(self, inboxes: AllInboxes, waiter: Waiter, inbox: Inbox, lang: str, cursor: str) -> None:
        self._begin = inbox
        self._inboxes = inboxes
        self._waiter = waiter
        self._lang = lang
        self._cursor = cursor
        self._left = False
        self._ended = inbox.state == "expired"
        self.sent = 0

    async def run(self, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        watching = asyncio.ensure_future(_left(receive))
        watching.add_done_callback(self._leave)
        try:
            # With the cursor at which the stream begins: a client that is cut off before the first row comes back there.
            kind = "expired" if self._ended else "inbox"
            await _send(send, _RETRY + _event(kind, inbox_json(self._begin), self._cursor))
            await self._serve(send)
        except OSError:
            pass  # the client has left
        finally:
            watching.cancel()

    def _leave(self, _: "asyncio.Future[Any]") -> None:
        self._left = True
        self._waiter.woken.set()

    async def _serve(self, send: Send) -> None:
        waiter = self._waiter
        waiter.arrived = True  # what has come since the page was rendered
        again: float | None = None
        while not self._left and not self._inboxes.databases.closing:
            waiter.woken.clear()
            try:
                ending = await self._look(send)
                again = None
            except StoreError:
                waiter.arrived = waiter.changed = True
                ending, again = False, _AGAIN
            if ending:
                break
            if waiter.woken.is_set():
                continue
            if not await _woken(waiter, self._seconds(again)) and again is None:
                await self._silence(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _look(self, send: Send) -> bool:
        """Send what is new; whether that ends the stream. Raises StoreError."""
        waiter = self._waiter
        if waiter.changed:
            waiter.changed = False
            if await self._changed(send):
                return True
        if not waiter.arrived or self._ended:
            return False
        waiter.arrived = False
        count = 0
        try:
            while rows := await self._inboxes.after(waiter.key, self._cursor, _ROWS):
                await _send(send, _mail(rows, self._lang))
                self._cursor = rows[-1].cursor
                count += len(rows)
                if len(rows) < _ROWS:
                    break
        except InboxExpired:
            waiter.inbox = await self._inboxes.inbox(waiter.key, in_turn=True)
            return await self._changed(send)
        except KeyRefused:
            await _send(send, _event("gone", {}))
            return True
        except BadCursor:
            await _send(send, _event("reset", {}))
            return True
        if count:
            self.sent += count
            await _send(send, _event("news", {"count": count, "text": arrivals_text(count, self._lang)}))
        return False

    async def _changed(self, send: Send) -> bool:
        """Send how the inbox is now; whether that ends the stream."""
        inbox = self._waiter.inbox
        if inbox is None:
            await _send(send, _event("gone", {}))
            return True
        if self._ended and inbox.state != "expired":
            self._waiter.arrived = True  # brought back
        self._ended = inbox.state == "expired"
        await _send(send, _event("expired" if self._ended else "inbox", inbox_json(inbox)))
        return False

    def _seconds(self, again: float | None) -> float:
        """How long to wait: until the next beat, the end of the inbox or of its grace."""
        seconds = HEARTBEAT if again is None else again
        inbox = self._waiter.inbox
        ends = None if inbox is None else inbox.grace_until if self._ended else inbox.expires_at
        if ends is not None:
            seconds = min(seconds, max(0.05, (ends - datetime.now(UTC)).total_seconds() + 0.05))
        return seconds

    async def _silence(self, send: Send) -> None:
        """Say that the connection lives, and look at the inbox if its time is up."""
        await _send(send, _BEAT)
        inbox = self._waiter.inbox
        ends = None if inbox is None else inbox.grace_until if self._ended else inbox.expires_at
        if ends is not None and ends <= datetime.now(UTC):
            try:
                self._waiter.inbox = await self._inboxes.inbox(self._waiter.key, in_turn=True)
            except KeyRefused:
                self._waiter.inbox = None
            except StoreError:
                return
            if self._waiter.inbox is None or (self._waiter.inbox.state == "expired") != self._ended:
                self._waiter.wake()


async def wait_for_rows(
    inboxes: AllInboxes, waiter: Waiter, cursor: str, seconds: float, receive: Receive
) -> list[InboxRow]:
    """Return the rows after the cursor as soon as there are any; an empty list after `seconds`, or when the client has left.

    Raises what Inboxes.after raises.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    watching = asyncio.ensure_future(_left(receive))
    left = False

    def leave(_: "asyncio.Future[Any]") -> None:
        nonlocal left
        left = True
        waiter.woken.set()

    watching.add_done_callback(leave)
    try:
        while True:
            waiter.woken.clear()
            rows = await inboxes.after(waiter.key, cursor, _ROWS)
            if rows or left or inboxes.databases.closing or loop.time() >= until:
                return rows
            await _woken(waiter, until - loop.time())
    finally:
        watching.cancel()


async def _left(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _woken(waiter: Waiter, seconds: float) -> bool:
    """Wait until the waiter is woken, at most so long; whether it was."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await waiter.woken.wait()
    except TimeoutError:
        return False
    return True


async def _send(send: Send, octets: bytes) -> None:
    await send({"type": "http.response.body", "body": octets, "more_body": True})


def _mail(rows: Iterable[InboxRow], lang: str) -> bytes:
    return b"".join(_event("mail", row_json(row, lang), row.cursor) for row in rows)


def _event(name: str, data: dict[str, Any], cursor: str = "") -> bytes:
    """One event. JSON has no line break, so its data is one line."""
    position = f"id: {cursor}\n" if cursor else ""
    return f"{position}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")
