"""The mail host: Postfix is aborted in the middle of a load; its pipe(8), the handler, the resident workers and their
supervisor are killed at random.

Whatever Postfix accepted must be stored once for each recipient, byte for byte, when the queue is empty; and nothing
may bounce. A message of which the handler saw only the beginning, because pipe(8) died, must not be stored for the
whole.
"""

import random
import re
import time
from collections.abc import Callable

from harness import account
from harness.database import Database
from harness.mailhost import DOMAIN
from harness.postgresql import FAST, PostgreSQL
from harness.service import wait_until

from .host_faults import HostFaults
from .ledger import Mode, Row, Scale
from .load import Load, drain, mail_host, message, service
from .pool import only_resident

# A private Postfix that restarts a service at once: by default it waits for a minute after the service died. The time
# limit is far above the time of a delivery, and short enough to wait for.
_MAIN = ("service_throttle_time=1s", "transport_retry_time=1s", "qmgr_ipc_timeout=5s", "pipehandler_time_limit=6s")

_LOAD = {
    (Mode.COLD, Scale.FULL): (1_000, 0.0),
    (Mode.COLD, Scale.THIN): (100, 0.0),
    (Mode.COLD, Scale.SHORT): (40, 0.0),
    (Mode.RESIDENT, Scale.FULL): (5_000, 0.2),
    (Mode.RESIDENT, Scale.THIN): (300, 0.2),
    (Mode.RESIDENT, Scale.SHORT): (60, 0.2),
    (Mode.CLIENT, Scale.FULL): (5_000, 0.2),
    (Mode.CLIENT, Scale.THIN): (300, 0.2),
    (Mode.CLIENT, Scale.SHORT): (60, 0.2),
}
"""The number of messages, and the seconds that a client pauses before each: workers are fast, and the load should last
a while."""

_SHARE = {True: 0.1, False: 0.3}
"""The share that workers have to deliver: the service is often down, and in the short form it is hardly up again before
the end."""


_MOST_CUTS = 20
"""How often one is tried: a fast handler may have read it all."""

_LIMIT = "the time limit was hit"
_TRACES = {
    "a handler was killed": r"Command died with signal 9",
    "a pipe(8) was killed": r"warning: process \S+/pipe pid \d+ killed by signal 9",
    _LIMIT: r"Command time limit exceeded",
    "Postfix was reloaded": r"reload -- version",
    "Postfix was started again": r"(?s)daemon started.*daemon started",
}
"""What the mail log must contain if the faults had an effect."""


def run(scale: Scale, mode: Mode) -> Row:
    """The campaign of the mail host."""
    row = mode.row("mailhost")
    full = not scale.short
    limited = full or mode is Mode.COLD  # whether it is worth waiting for the time limit
    with (
        account.folder("pipehandler-pg-") as folder,
        PostgreSQL(folder / "16", 16, FAST).start() as server,
        Database.fresh(server) as database,
        mail_host(row, database.conninfo, *_MAIN, client=mode is Mode.CLIENT) as host,
        service(host, mode) as resident,
    ):
        faults = HostFaults(host, resident)
        once: list[Callable[[], None]] = [faults.kill_handler, faults.abort, faults.reload, faults.kill_agent]
        once += [faults.kill_handler, *[faults.freeze_handler] * limited]
        often = [*once, faults.crash, *[faults.kill_handler, faults.kill_agent] * 6]
        if resident:
            once += [faults.kill_worker, faults.reload_service, faults.kill_supervisor, faults.restart_service]
            often += [*once, *[faults.freeze_worker, faults.kill_worker] * 3]
        count, pause = _LOAD[mode, scale]
        try:
            with Load(host, count, pause=pause) as load:
                for make in once:
                    make()
                    row.points += 1
                if limited:  # before another fault hits the same pipe(8)
                    wait_until(lambda: "Command time limit exceeded" in host.log())
                while full and (load.going_on or len(host.queue()) > 20):
                    random.choice(often)()
                    row.points += 1
                    time.sleep(random.uniform(0, 1))
            _cut(faults, load, row, len(scale.thin(range(60), 6)) if full else 2)
        finally:
            faults.thaw()
        drain(host)
        load.ledger.check(database, row)
        for what, trace in _TRACES.items():
            if not re.search(trace, host.log()) and (limited or what != _LIMIT):
                row.note(f"it never happened that {what}")
        if resident:
            only_resident(row, host.handler, share=_SHARE[scale.short])
    return row


def _cut(faults: HostFaults, load: Load, row: Row, count: int) -> None:
    """Large messages, each truncated on its way from pipe(8) to the handler; more where that came too late for all of them."""
    drain(faults.host)
    cuts = 0
    for number in range(10_001, 10_001 + max(count, _MOST_CUTS)):
        if cuts and number > 10_000 + count:
            break
        raw = message(number) + b"%060d\n" % number * 8_000
        recipient = f"cut{number}@{DOMAIN}"
        load.ledger.send(raw, recipient)
        cuts += faults.cut(raw, recipient)
        drain(faults.host)
    row.points += cuts
    if not cuts:
        row.note("no message was cut")
