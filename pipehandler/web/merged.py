"""What several shards answer about one viewer's key, as one answer: the newest mail first, whatever shard it is on.

The order of a shard's list is that of its transactions, which are not comparable with another's. So lists are merged by the time at
which a message was received, and a cursor has a position in each of them: 0:POSITION,1:POSITION.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from heapq import merge
from typing import NamedTuple

from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import RAISE_EXCEPTION
from pipehandler.store.inbox_errors import BadCursor
from pipehandler.store.inbox_values import Inbox, InboxPage, InboxRow

AWAY = "away"
"""The position in the stream of a shard that did not answer: nothing of it was shown."""

_CURSOR = re.compile(r"[0-9]+:[0-9a-z-]*(,[0-9]+:[0-9a-z-]*)*")


def is_joined(cursor: str) -> bool:
    """Whether a cursor has a position for each shard."""
    return ":" in cursor


def joined(positions: Mapping[int, str]) -> str:
    """Return the positions as one cursor."""
    return ",".join(f"{number}:{position}" for number, position in sorted(positions.items()))


def parted(cursor: str, numbers: Collection[int]) -> dict[int, str]:
    """Return the positions of a cursor for the shards with these numbers. Raises BadCursor."""
    pairs = [part.split(":") for part in cursor.split(",")] if _CURSOR.fullmatch(cursor) else []
    positions = {int(number): position for number, position in pairs if len(number) < 3}
    if sorted(positions) != sorted(numbers) or len(pairs) != len(positions):
        raise BadCursor(STORE_UNAVAILABLE, f"the cursor {cursor[:60]!r} is not of these shards", RAISE_EXCEPTION)
    return positions


def merged_inbox(found: Mapping[int, Inbox], numbers: Collection[int]) -> Inbox:
    """Return what a key opens on all shards. found: as each shard that answers has it."""
    first = next(iter(found.values()))
    return replace(
        first,
        cursor=joined({number: found[number].cursor if number in found else AWAY for number in numbers}),
        deliveries=_sum(inbox.deliveries for inbox in found.values()),
        octets=_sum(inbox.octets for inbox in found.values()),
    )


def _sum(values: Iterator[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class _Of(NamedTuple):
    """A row of a shard."""

    number: int
    row: InboxRow


def _in_order(lists: Mapping[int, Collection[InboxRow]], newest_first: bool) -> Iterator[_Of]:
    """The rows of all shards by time; those of one shard keep their order."""
    tagged = ([_Of(number, row) for row in rows] for number, rows in lists.items())
    return merge(*tagged, key=lambda each: each.row.received_at, reverse=newest_first)


def merged_page(before: Mapping[int, str], pages: Mapping[int, InboxPage], max_rows: int) -> InboxPage:
    """Return a page of at most `max_rows` rows. before: the position of each shard. pages: of those that answer.

    A search ends in each shard by itself, so what it finds is in order within a page.
    """
    positions = {number: before[number] or (pages[number].newest if number in pages else "") for number in before}
    left = {number: len(page.rows) for number, page in pages.items()}
    rows: list[InboxRow] = []
    for number, row in _in_order({number: page.rows for number, page in pages.items()}, newest_first=True):
        if len(rows) == max_rows:
            break
        positions[number] = row.cursor
        left[number] -= 1
        rows.append(replace(row, cursor=joined(positions)))
    for number, page in pages.items():
        if not left[number] and page.older:
            positions[number] = page.older
    more = any(left[number] or page.older for number, page in pages.items())
    newest = joined({number: pages[number].newest if number in pages else AWAY for number in before})
    return InboxPage(tuple(rows), joined(positions) if more else None, newest, partial=len(pages) < len(before))


def merged_rows(after: Mapping[int, str], found: Mapping[int, list[InboxRow]], max_rows: int) -> list[InboxRow]:
    """Return the rows after the position of each shard. found: at most `max_rows` of each that answers."""
    positions = dict(after)
    left = {number: len(rows) for number, rows in found.items()}
    rows = []
    for number, row in _in_order(found, newest_first=False):
        positions[number] = row.cursor
        left[number] -= 1
        rows.append(replace(row, cursor=joined(positions)))
        if not left[number] and len(found[number]) == max_rows:
            break  # it has more, which may come before the next ones of the others
    return rows
