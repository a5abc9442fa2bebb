"""What several shards answer about one viewer's key, as one answer."""

from datetime import UTC, datetime, timedelta

import pytest

from pipehandler.store.inbox_errors import BadCursor
from pipehandler.store.inbox_values import InboxPage, InboxRow
from pipehandler.web.merged import AWAY, joined, merged_page, merged_rows, parted

BEGIN = datetime(2026, 11, 27, tzinfo=UTC)


def row(shard: int, second: int) -> InboxRow:
    """A row of a shard, whose position in it is its second."""
    received = BEGIN + timedelta(seconds=second)
    return InboxRow(
        64 * second + shard, f"{second}-1", "x", None, "a@b.example", received, 1, 0, "parsed", None, "c@d.example"
    )


def page(shard: int, *seconds: int, older: str | None = None) -> InboxPage:
    """A page of a shard."""
    return InboxPage(tuple(row(shard, second) for second in seconds), older, f"{shard}99-0")


def test_cursors() -> None:
    """A cursor has a position for each shard, which may be empty; anything else is refused."""
    positions = {0: "12-3", 1: "", 2: "0a1b2c3d-4-5", 10: AWAY}
    assert parted(joined(positions), positions) == positions
    for wrong in (
        "",
        "1-1",
        "0:1-1",
        "0:1-1,1:2-2,2:",
        "0:1-1,0:1-1",
        "0:1-1,1:'",
        "0:1-1,x:1",
        "0:1-1,1:2-2,",
        "0,1:1-1",
    ):
        with pytest.raises(BadCursor):
            parted(wrong, [0, 1])


def test_a_page_is_continued_where_it_ended() -> None:
    """The newest of all, whatever shard they are on; the next page begins behind what was taken of each."""
    first = merged_page({0: "", 1: ""}, {0: page(0, 9, 7, 5, older="5-1"), 1: page(1, 8, 2)}, 3)
    assert [each.delivery for each in first.rows] == [9 * 64, 8 * 64 + 1, 7 * 64]
    assert (first.older, first.newest, first.partial) == ("0:7-1,1:8-1", "0:099-0,1:199-0", False)
    assert [each.cursor for each in first.rows] == ["0:9-1,1:199-0", "0:9-1,1:8-1", "0:7-1,1:8-1"]
    last = merged_page(parted(first.older or "", [0, 1]), {0: page(0, 5), 1: page(1, 2)}, 3)
    assert [each.delivery for each in last.rows] == [5 * 64, 2 * 64 + 1]
    assert last.older is None


def test_a_search_goes_on_in_each_shard() -> None:
    """A shard that has looked at much and found little goes on behind what it has looked at, one that is done stays done."""
    found = merged_page({0: "", 1: "", 2: "3-3"}, {0: page(0, older="4-4"), 1: page(1, 3), 2: page(2)}, 50)
    assert [each.delivery for each in found.rows] == [3 * 64 + 1]
    assert found.older == "0:4-4,1:3-1,2:3-3"


def test_the_page_without_a_shard() -> None:
    """It says that mail is missing; the stream cannot go on where nothing was shown, nor does the next page skip it."""
    found = merged_page({0: "", 1: ""}, {1: page(1, 3, 2, 1)}, 2)
    assert (found.partial, found.newest, found.older) == (True, f"0:{AWAY},1:199-0", "0:,1:2-1")
    assert merged_page({0: "", 1: ""}, {1: page(1, 3)}, 2).older is None


def test_rows_after() -> None:
    """The oldest first; behind the last row of a shard that may have more, nothing of another one. A shard that is away keeps
    its position."""
    rows = merged_rows({0: "1-1", 1: "1-1", 2: "8-8"}, {0: [row(0, 2), row(0, 4)], 1: [row(1, 3), row(1, 5)]}, 2)
    assert [each.delivery for each in rows] == [2 * 64, 3 * 64 + 1, 4 * 64]
    assert rows[-1].cursor == "0:4-1,1:3-1,2:8-8"
    assert [each.delivery for each in merged_rows({0: "1-1", 1: ""}, {0: [row(0, 2)], 1: [row(1, 3)]}, 2)] == [128, 193]
    assert merged_rows({0: "1-1"}, {0: []}, 2) == []
