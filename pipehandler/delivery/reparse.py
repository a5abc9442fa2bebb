"""Parse stored messages again: the failed ones, those of another parser version, or all.

Each message is one transaction: one call of the SQL function pipehandler.reparse, which replaces the parsed content and
never the bytes. An interrupted run leaves each message either unchanged or complete. A message that was parsed before
and cannot be parsed now (on a busy host it takes too long) is left unchanged.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from pipehandler.parse.message import PARSER_VERSION

from ..mail.parsed import ParsedMessage
from ..runtime import limits
from ..runtime.deadline import Deadline
from ..settings.config import Config
from ..store.connection import Store
from ..store.errors import DataRefused
from ..store.ids import days
from ..store.ingest import check_size
from ..store.readable import readable_rows
from ..store.view import expression, view
from .guarded_parse import guarded_parse

FAILED, OLDER, ALL = "failed", "older", "all"
"""Which messages: those in quarantine, those parsed by another version of the parser, all."""

PARSED = "parsed now"
STILL_FAILED = "still not parsed"
AGAIN = "parsed again"
KEPT = "left as it was"
WITHOUT_BYTES = "without bytes"
GONE = "gone"
"""The result for one message: out of quarantine; still in it; parsed, as before; parsed before, but not now; its bytes
are no longer stored; removed meanwhile."""

_BATCH = 100  # keeps statements short and memory small

_CHOSEN = """
  FROM pipehandler.message m
 WHERE (%(after)s::uuid IS NULL OR m.id > %(after)s::uuid)
   AND (%(state)s::text IS NULL OR m.state = %(state)s)
   AND (%(parser)s::text IS NULL OR m.parser <> %(parser)s)
"""
_IDS = f"SELECT m.id::text {_CHOSEN} GROUP BY m.id ORDER BY m.id LIMIT {_BATCH}"
_COUNT = f"SELECT count(DISTINCT m.id) {_CHOSEN}"

_STORED = """
SELECT m.state, r.raw
  FROM pipehandler.message m
  LEFT JOIN pipehandler.raw_message r ON r.day = ANY (%(days)s::date[]) AND r.day = m.day AND r.message = m.id
 WHERE m.day = ANY (%(days)s::date[]) AND m.id = %(message)s::uuid
 ORDER BY r.message IS NULL, m.state
 LIMIT 1
"""

_REPARSE = """
SELECT name, before, after
  FROM pipehandler.reparse(%s::uuid, {parsed}, %s::text, %s::text, %b::bytea[], %s::boolean)
"""


class _Stored(NamedTuple):
    state: str
    raw: bytes | None


class Change(NamedTuple):
    """A column of the message, or "attachments", with its value before and after."""

    name: str
    before: Any
    after: Any


class Reparsed(NamedTuple):
    """The result for one message: its UUID, one of the results above, the changes, and the reason if unparsed."""

    message: str
    how: str
    changes: tuple[Change, ...] = ()
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether the parsed content differs from before. A new parser version alone does not count."""
        return any(change.name != "parser" for change in self.changes)


def chosen(store: Store, which: str, after: str | None = None) -> Iterator[str]:
    """Yield the UUIDs of `which` messages above `after`, in order."""
    while messages := store.values(_IDS, _choice(which, after), of=str):
        yield from messages
        after = messages[-1]


def count(store: Store, which: str, after: str | None = None) -> int:
    """Count the messages that `chosen` yields."""
    return store.values(_COUNT, _choice(which, after), of=int)[0]


def reparse(store: Store, config: Config, message: str, dry_run: bool = False) -> Reparsed:
    """Parse one message again and store the result; with `dry_run` only report what would change.

    Raises StoreError, and OSError, ImportError or LookupError if this host cannot parse. Uses SIGALRM. Only the bytes
    of the message itself are parsed, without the fields that were prepended for one of its deliveries.
    """
    parameters = {"days": days(store, message), "message": message}
    rows = store.rows(_STORED, parameters, row=_Stored, binary=True)
    if not rows:
        return Reparsed(message, GONE)
    raw, failed = rows[0].raw, rows[0].state == "failed"
    if raw is None:
        return Reparsed(message, WITHOUT_BYTES)
    parsed = _parse(raw, message, config, isolate=failed)
    if parsed.error is None:
        try:
            changes = _store(store, config, message, parsed, dry_run)
            return Reparsed(message, PARSED if failed else AGAIN, changes)
        except DataRefused as refusal:
            parsed = ParsedMessage(error=f"{refusal} SQLSTATE {refusal.sqlstate}")
        except MemoryError:
            parsed = ParsedMessage(error="what was read from the message does not fit into the memory")
    reason = parsed.error or ""
    if not failed:
        return Reparsed(message, KEPT, reason=reason)
    try:
        return Reparsed(message, STILL_FAILED, _store(store, config, message, parsed, dry_run), reason)
    except DataRefused as refusal:  # the stored parts have an unexpected shape
        return Reparsed(message, STILL_FAILED, reason=f"{refusal} SQLSTATE {refusal.sqlstate}")


def _choice(which: str, after: str | None) -> dict[str, str | None]:
    return {
        "state": "failed" if which == FAILED else None,
        "parser": PARSER_VERSION if which == OLDER else None,
        "after": after,
    }


def _parse(raw: bytes, message: str, config: Config, isolate: bool) -> ParsedMessage:
    with limits.temporarily(config.limits):
        # Time for a child and for the parser, with a margin so that the step always ends before the deadline.
        deadline = Deadline(3 * config.limits.parse_timeout, time.monotonic())
        return guarded_parse(raw, message, config, deadline, isolate).message


def _store(store: Store, config: Config, message: str, parsed: ParsedMessage, dry_run: bool) -> tuple[Change, ...]:
    """THE COMMIT POINT of one message."""
    arguments = view(parsed, PARSER_VERSION, config.store.attachments)
    check_size(*arguments)
    statement = _REPARSE.format(parsed=expression(parsed))
    return tuple(readable_rows(store, statement, [message, *arguments, dry_run], Change, "the change of", "name"))
