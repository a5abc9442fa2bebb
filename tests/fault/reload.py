"""The supervisor is killed at a system call of a reload: afterwards the service answers, or it has ended and is started
again, as systemd does; then a worker delivers a message."""

import signal
from contextlib import suppress
from pathlib import Path

from harness import account
from harness.handler import Handler
from harness.service import Service, wait_until

from pipehandler.monitor.journal_totals import records
from pipehandler.workers.listener import ServeError

from .injection import Call, attached, calls, fresh_database, letter, sample
from .ledger import Ledger, Mode, Row, Scale

_POINTS = {True: 10, False: 150}


def run(scale: Scale, mode: Mode) -> Row:
    """Kill at all system calls of a reload, or at a sample of them."""
    row, ledger = mode.row("reload"), Ledger()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        handler = Handler(folder / "handler", database.conninfo, serve={"workers": 2})
        service = Service(handler).start()
        trace = folder / "trace"
        with attached(service.pid, trace):
            service.signal(signal.SIGHUP)
            wait_until(service.ready, "the reload")
        made = calls(trace)
        points = sample(made, _POINTS[True]) if scale.short else scale.thin(2 * made, 18)
        for number, call in enumerate(points[: _POINTS[scale.short]]):
            service = _killed(service, handler, call, trace, row)
            sent = letter(f"reload{number}")
            ledger.send(sent.raw, *sent.recipients)
            ended = handler.run(sent.command(handler), sent.raw)
            row.statuses[ended.status] += 1
            if ended.status != 0:
                row.note(f"{ended} after the supervisor was killed at {call}")
        service.stop()
        cold = [record for record in records(str(handler.state), 3600) if record.mode == "cold"]
        if cold:
            row.note(f"{len(cold)} of {row.points} messages were delivered cold: the service did not answer")
        ledger.check(database, row)
    return row


def _killed(service: Service, handler: Handler, call: Call, trace: Path, row: Row) -> Service:
    """Reload with a kill at `call`; returns the service that answers afterwards."""
    with suppress(OSError), attached(service.pid, trace, call, f"signal=SIGKILL:when={call.number}"):
        service.signal(signal.SIGHUP)
    row.points += 1
    try:
        wait_until(lambda: service.has_ended() or _answers(service), "an answer or the end of the service")
    except TimeoutError:
        row.note(f"the service neither answers nor has ended after a kill at {call}")
        service.signal(signal.SIGKILL)
    if service.has_ended():
        service.wait()
        return Service(handler).start()
    return service


def _answers(service: Service) -> bool:
    """Whether its workers are ready for a message; it may end during the query."""
    try:
        return service.ready()
    except ServeError:
        return False
