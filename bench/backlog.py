"""A backlog: mail that arrives while PostgreSQL is down, and how it drains afterwards.

bench/run backlog [--messages 10000]
"""

import time

from harness.database import Database
from harness.mailhost import DOMAIN
from mail import keep, newsletter
from posting import Log, send
from report import Report, Table
from setting import Setting, Spent, Watch

from pipehandler.delivery.circuit_breaker import HOLD

SMALL = {"messages": 10}
_FILES = 10
_COMPARED = 5  # times fewer messages before the outage

# Postfix's default; the tests' private instance retries sooner.
_PATIENT = ("queue_run_delay=300s", "minimal_backoff_time=300s", "maximal_backoff_time=4000s")


def measure(setting: Setting, *, messages: int = 10_000) -> Report:
    """Deliver some before the outage, accept the rest during it, then drain the queue. Raises if a message was lost."""
    copies, fewer = max(1, messages // _FILES), max(1, messages // _FILES // _COMPARED)
    count, compared = _FILES * copies, _FILES * fewer
    rows: list[list[object]] = []

    def row(what: str, number: int, spent: Spent, log: Log) -> None:
        said = ", ".join(f"{status}: {times:,}" for status, times in sorted(log.statuses.items()))
        rows.append([what, number, spent.seconds, number / spent.seconds, *spent.each(number), said])
        log.attempts.clear()

    with (
        Database.fresh(setting.server) as database,
        setting.mail_host(database, *_PATIENT) as host,
        setting.service(host.handler),
    ):
        paths, log = keep([newsletter(number) for number in range(_FILES)], setting.new_folder()), Log(host, DOMAIN)
        send(host, paths[:1], 1, "warm", DOMAIN)
        log.wait(1)
        log.attempts.clear()

        watch = setting.watch()
        send(host, paths, fewer, "before", DOMAIN)
        log.wait(compared)
        row("as they come", compared, watch.read(), log)

        setting.server.stop()
        watch = setting.watch()
        send(host, paths, copies, "down", DOMAIN)
        log.wait(count, "deferred")
        row("deferred in the outage", count, watch.read(), log)

        setting.start_server()
        time.sleep(1.2 * HOLD)  # nothing is tried before that
        watch = setting.watch()
        while log.ended < count:  # a delivery that starts while the first one probes is deferred once more
            host.flush()
            log.wait(len(log.attempts) + count - log.ended, "sent", "bounced", "deferred")
        row("drained after it", count, watch.read(), log)
        log.close()
        stored = database.value("SELECT count(*) FROM pipehandler.delivery")
    if stored != 1 + compared + count:
        raise RuntimeError(f"{stored} of {1 + compared + count} messages were stored")
    head = ["messages", "number", "seconds", "messages/s", *Watch.HEAD, "Postfix said"]
    note = (
        "Newsletters of 12 KB to resident workers, Postfix with its default times between two attempts. PostgreSQL is stopped, all mail"
        " is tried once and deferred; PostgreSQL is started again, and the queue is flushed. Every message was stored once."
    )
    return Report([Table("A backlog", head, rows, note)])
