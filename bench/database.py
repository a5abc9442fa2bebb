"""The database's side of a message: round trips, WAL and dead rows.

bench/run database [--messages 500]
"""

from collections.abc import Sequence
from itertools import pairwise

from cost import MISSING
from handover import hand_over
from harness.database import Database
from harness.proxy import BACKEND, FRONTEND, proxy
from harness.service import wait_until
from mail import mix, newsletter
from report import Aim, Report, Table
from setting import Setting, backends
from through import COLD, RESIDENT

SMALL = {"messages": 10}

_ROWS = " + ".join(
    f"(SELECT coalesce(sum(pg_column_size(each)), 0) FROM pipehandler.{table} AS each)"
    for table in ("message", "raw_message", "attachment", "delivery")
)
_STATE = f"""
SELECT {_ROWS} AS rows, (SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables) AS relations,
       pg_current_wal_insert_lsn() - '0/0' AS wal, (SELECT wal_fpi FROM pg_stat_wal) AS pages,
       (SELECT sum(n_dead_tup) FROM pg_stat_user_tables) AS dead,
       (SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables) AS changed,
       (SELECT sum(seq_tup_read) FROM pg_stat_user_tables) AS scanned
"""


def measure(setting: Setting, *, messages: int = 500) -> Report:
    """Count what one message costs the database, each kind in a separate database."""
    letters = [newsletter(number) for number in range(messages)]
    what, mixed = mix(messages)
    kinds = {
        "newsletters": _measure(setting, letters),
        "real mail": _measure(setting, mixed),
        "newsletters, for a second recipient": _measure(setting, letters, first=letters),
        "newsletters, delivered again": _measure(setting, letters, first=letters, again=True),
    }
    head = [
        "messages",
        "octets",
        "rows",
        "tables, indexes",
        "WAL",
        "whole pages in it",
        "WAL of the rows",
        "dead rows",
        "changed rows",
        "rows scanned",
    ]
    note = (
        f"Octets for each message, {messages} of each kind after a checkpoint; real mail: {what}. Rows: what is stored, compressed, without"
        " indexes; tables, indexes: by how much they grew, in whole pages. Dead and changed rows: of all messages together; rows scanned: read without an index, for each message."
    )
    trips, announced = (_round_trips(setting, notify) for notify in (False, True))
    return Report(
        [
            Table("What is written", head, [[name, *found] for name, found in kinds.items()], note),
            Table(
                "Round trips",
                ["way", "until it is stored", "until it is announced"],
                [[way, count, announced[way]] for way, count in trips.items()],
                "Counted on the wire, for each message; a cold delivery connects first, without TLS. Postfix has its answer when the message"
                " is stored; the announcement (store.notify) comes after it.",
            ),
        ],
        [
            Aim("round trips of a resident delivery", trips[RESIDENT], 1),
            *(Aim(f"WAL, of the bytes stored ({name})", kinds[name][5], 1.4) for name in ("newsletters", "real mail")),
        ],
    )


def _measure(
    setting: Setting, messages: Sequence[bytes], first: Sequence[bytes] = (), again: bool = False
) -> list[float]:
    """Deliver `messages`; before that `first`, to another recipient or, with `again`, to the same one."""
    with Database.fresh(setting.server) as database:
        handler = setting.handler(database, serve={"workers": 1, "max_messages": 1_000_000})

        def deliver(mail: Sequence[bytes], recipient: str) -> None:
            with setting.service(handler):
                for raw in mail:
                    hand_over(handler, raw, recipient)
            wait_until(lambda: not backends(database), "the end of the session, which then tells its counts")

        if first:
            deliver(first, "two@example.com" if again else "one@example.com")
        setting.server.psql("postgres", "CHECKPOINT")
        (before,) = database.rows(_STATE)
        deliver(messages, "two@example.com")
        (after,) = database.rows(_STATE)
    rows, relations, wal, pages, dead, changed, scanned = (float(b - a) for a, b in zip(before, after, strict=True))
    count = len(messages)
    octets = sum(map(len, messages)) / count
    ratio = wal / rows if rows else MISSING
    return [octets, rows / count, relations / count, wal / count, pages / count, ratio, dead, changed, scanned / count]


def _round_trips(setting: Setting, notify: bool, count: int = 5) -> dict[str, float]:
    """The round trips of a message in each mode, with and without the NOTIFY."""
    found: dict[str, float] = {}
    with Database.fresh(setting.server) as database, proxy(setting.server.port) as wire:
        handler = setting.handler(database)
        handler.configure(wire.conninfo(database.conninfo), serve={"workers": 1}, store={"notify": notify})
        with setting.service(handler) as service:
            hand_over(handler, newsletter(-1))
            wait_until(lambda: not service.status()["busy"])
            wire.messages.clear()
            for number in range(count):
                hand_over(handler, newsletter(number))
                wait_until(lambda: not service.status()["busy"])
            found[RESIDENT] = _turns(wire.kinds()) / count
        wire.messages.clear()
        ended = handler.deliver(newsletter(count))
        wire.wait_for(2)
        if ended.status:
            raise RuntimeError(f"not stored: {ended}")
        found[COLD] = _turns(wire.kinds())
    return found


def _turns(kinds: Sequence[str]) -> int:
    """How often a message from the server follows one from the client."""
    return sum(a[0] == FRONTEND and b[0] == BACKEND for a, b in pairwise(kinds))
