"""Two PostgreSQL servers under Patroni lose one of them, and then the other.

Without synchronous_mode_strict the second server goes on alone, and what it acknowledges is lost with it. That is no defect, if
`check`, `status` and `metrics` report it before: this kind fails if they do not, if anything acknowledged before is lost, and if
nothing is lost afterwards, because then it would show nothing.

With synchronous_mode_strict nothing is acknowledged until the first server is back, and nothing is lost.
"""

import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from harness.patroni import LOOP_WAIT, ONE, TTL, TWO, Node, Patroni, patroni

from .continuous import Load, MailHost, mail_hosts
from .ledger import Ledger, Mode, Row, Scale
from .patroni import BOUND, Stored

_MESSAGES = 200
_REPORTS = {
    "check": r"acknowledged by one server only",
    "status": r"acknowledged by one server only",
    "metrics": r"^pipehandler_acknowledging_servers 1(\.0)?$",
}
"""What each command prints while acknowledged mail is on one server only."""

_STRICT = {Scale.SHORT: 1, Scale.THIN: 1, Scale.FULL: 20}
"""Rounds with synchronous_mode_strict, each with a new pair."""

_ALONE = 30
"""Seconds for which the strict server is observed alone, after it was promoted."""


def run(scale: Scale, mode: Mode) -> Row:
    """Both settings, the strict one in several rounds; prints to stderr what was lost, and for how long nothing was
    acknowledged."""
    row = mode.row("pair")
    for lose in (_not_strict, *[_strict] * _STRICT[scale]):
        with patroni(lose is _strict, (ONE, TWO)) as cluster, mail_hosts(cluster) as (host, _):
            lose(cluster, host, row)
            row.points += 1
    return row


def _not_strict(cluster: Patroni, host: MailHost, row: Row) -> None:
    before, alone = Ledger(), Ledger()
    _deliver(host, before, row, "before")
    first = _leader(cluster)
    first.kill()
    killed = time.monotonic()
    _deliver(host, Ledger(), row, "probe", 1)
    outage = time.monotonic() - killed
    _say(f"not strict: the first message was acknowledged {outage:.1f} s after {first.name} was lost")
    if outage > BOUND:
        row.note(f"an outage of {outage:.1f} s; the bound is {BOUND} s")
    second = _leader(cluster)
    cluster.wait(lambda: _reported(host) == set(_REPORTS), 120)
    _say(f"not strict: {first.name} was lost; reported by {', '.join(sorted(_reported(host)))}: one server only")
    _deliver(host, alone, row, "alone")
    second.kill()
    shutil.rmtree(second.folder / "data")  # it does not come back
    cluster.run(first)
    time.sleep(TTL + LOOP_WAIT)
    if cluster.leader() is not None:
        row.note("Patroni promoted a server that lacks acknowledged mail, without being asked")
    _say(f"not strict: {second.name} was lost as well; {first.name} is back, and waits for patronictl")
    cluster.patronictl("failover", "mail", "--candidate", first.name, "--force")
    cluster.wait(lambda: cluster.leader() is first, 120)
    lost = Row("alone")
    alone.check(Stored(cluster, "alone"), lost)  # type: ignore[arg-type]
    _say(f"not strict: {lost.sent} messages were acknowledged by one server only, {lost.lost} of them are lost")
    if not lost.lost:
        row.note("nothing was lost with the last server, so this run shows nothing")
    row.doubled += lost.doubled
    before.check(Stored(cluster, "before"), row)  # type: ignore[arg-type]


def _strict(cluster: Patroni, host: MailHost, row: Row) -> None:
    ledger = Ledger()
    _deliver(host, ledger, row)
    first = _leader(cluster)
    first.kill()
    killed = time.monotonic()
    load = Load(host, ledger, _MESSAGES)
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load.run) for _ in range(4)]
        cluster.wait(lambda: cluster.leader() not in (None, first), 120)
        time.sleep(_ALONE)
        if load.acknowledged:
            row.note(f"{len(load.acknowledged)} messages were acknowledged by one server only, in strict mode")
        back = time.monotonic()
        cluster.run(first)
        for each in clients:
            each.result()
    row.statuses += load.statuses
    after = min(load.acknowledged) - back
    _say(
        f"strict: nothing acknowledged for {min(load.acknowledged) - killed:.1f} s:"
        f" {back - killed:.1f} s until {first.name} was started again, and {after:.1f} s after that"
    )
    if after > BOUND:
        row.note(f"{after:.1f} s passed after the second server was back; the bound is {BOUND} s")
    cluster.settle()
    second = _leader(cluster)
    second.kill()
    shutil.rmtree(second.folder / "data")
    cluster.wait(lambda: cluster.leader() is first, 120)
    ledger.check(Stored(cluster), row)  # type: ignore[arg-type]


def _deliver(host: MailHost, ledger: Ledger, row: Row, people: str = "user", count: int = _MESSAGES) -> None:
    """Deliver messages until each is acknowledged."""
    load = Load(host, ledger, count, people)
    load.run()
    row.statuses += load.statuses
    if load.given_up:
        row.note(f"{load.given_up} messages were never acknowledged")


def _leader(cluster: Patroni) -> Node:
    leader = cluster.leader()
    assert leader
    return leader


def _reported(host: MailHost) -> set[str]:
    """The commands that report that acknowledged mail is on one server only."""
    return {command for command, pattern in _REPORTS.items() if re.search(pattern, host.run(command), re.MULTILINE)}


def _say(text: str) -> None:
    sys.stderr.write(f"    {text}\n")
    sys.stderr.flush()
