"""How cost grows with the size of a message, from 1 KB to 50 MB: time, CPU and memory, cold and resident.

bench/run sizes [--rounds 7]
"""

import statistics
from collections.abc import Callable
from contextlib import suppress

from cost import forget_peak, peak
from harness.database import Database
from mail import WITH_ATTACHMENT, message, text
from process import Ended, Starter
from report import Aim, Report, Table
from setting import Clock, Setting, backends

from pipehandler.mail.sysexits import EX_OK, EX_OSERR, EX_TEMPFAIL
from pipehandler.settings.config import memory_needed

SMALL = {"rounds": 1, "largest": 100_000}
_SIZES = (1_000, 12_000, 100_000, 1_000_000, 10_000_000, 50_000_000)
_MB = 2**20


def measure(setting: Setting, *, rounds: int = 7, largest: int = _SIZES[-1]) -> Report:
    """Measure each size, then the effect of a memory limit on the largest; raises if a message was not stored."""
    sizes = [size for size in _SIZES if size <= largest]
    kinds: list[tuple[int, Callable[[int, int], bytes]]] = [*((size, message) for size in sizes), (sizes[-1], text)]
    with Database.fresh(setting.server) as database, Starter(setting.new_folder()) as starter:
        resident = setting.handler(database, serve={"workers": 1, "max_messages": 1_000_000, "max_growth": 1 << 40})
        cold = setting.handler(database)
        rows: list[list[object]] = []
        peaks: list[tuple[float, float]] = []
        with setting.service(resident) as service:
            starter.run(resident.command(), message(0, sizes[0]))
            (worker,), (backend,) = service.workers(), backends(database)
            for size, make in kinds:
                ended: list[Ended] = []
                entered: list[Ended] = []
                clocks = Clock(worker), Clock(backend)
                with suppress(OSError):  # not root
                    forget_peak(worker)
                for number in range(rounds):
                    ended.append(starter.run(cold.command(), make(2 * number + size, size)))
                    entered.append(starter.run(resident.command(), make(2 * number + 1 + size, size)))
                spent = [1000 * clock.seconds() / rounds for clock in clocks]
                most = max(each.peak for each in ended), peak(worker)
                peaks.append((most[0] / size, most[1] / size))
                rows.append(
                    [size, "text" if make is text else "attachment" if size >= WITH_ATTACHMENT else "newsletter", *(1000 * statistics.median(each.wall for each in way) for way in (ended, entered)),
                     1000 * statistics.median(each.cpu for each in ended), *spent, most[0] / _MB, most[1] / _MB]
                )  # fmt: skip
        count = database.value(
            "SELECT count(*) FROM pipehandler.delivery WHERE id IN (SELECT id FROM pipehandler.inbox WHERE state = 'parsed')"
        )
        if count != 2 * rounds * len(kinds) + 1:
            raise RuntimeError(f"{count} messages were stored and parsed, not {2 * rounds * len(kinds) + 1}")
        hostile = b"Content-Type: text/plain; charset=utf-16\n\n" + bytes(sizes[-1])
        limit = memory_needed(len(hostile))
        tight = setting.handler(database, limits={"memory": limit, "message_size": len(hostile)})
        limited = starter.run(tight.command(), hostile, EX_OK, EX_TEMPFAIL, EX_OSERR)
    head = [
        "octets",
        "mostly",
        "cold ms",
        "resident ms",
        "cold CPU ms",
        "worker CPU ms",
        "PostgreSQL CPU ms",
        "cold peak MB",
        "worker peak MB",
    ]
    note = (
        f"ms: whole entrypoints, medians of {rounds}; CPU of the worker and of its session: means; peak: the most memory resident. At last a"
        f" message of {sizes[-1]:,} octets of NUL that claims to be UTF-16, with the smallest limits.memory that is allowed for its size,"
        f" {limit / _MB:.0f} MB: {limited.peak / _MB:.0f} MB resident at most, status {limited.status}, {limited.output.partition(' stored')[0]}."
    )
    return Report(
        [Table("Sizes", head, rows, note)],
        [
            Aim(f"peak memory for {sizes[-1]:,} octets, times its size: cold", peaks[-2][0], 6),
            Aim("the same, worker", peaks[-2][1], 6),
            Aim("the same, all text, cold", peaks[-1][0], 6),
            Aim("the same, all text, worker", peaks[-1][1], 6),
            Aim("peak memory of a hostile message, of the limit that is configured", limited.peak / limit, 1),
        ],
    )
