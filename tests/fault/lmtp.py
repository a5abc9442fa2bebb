"""LMTP: its receiver, its workers, the supervisor and the database are killed, stopped and restarted under a load, and
Postfix is switched to the pipe and back.

Whatever Postfix accepted must be stored once for each recipient, byte for byte, when the queue is empty; and nothing may
bounce. A message that lmtp(8) reported as sent must be stored, whatever happened after its final dot.
"""

import random
import signal
import time
from collections.abc import Callable

from harness import account
from harness.database import Database
from harness.lmtp import Receiving
from harness.postgresql import FAST, PostgreSQL
from harness.service import Service, wait_until

from .host_faults import HostFaults
from .ledger import Mode, Row, Scale
from .load import Load, drain, mail_host
from .processes import children, name, send

_LOAD = {Scale.FULL: (10_000, 0.1), Scale.THIN: (1_000, 0.1), Scale.SHORT: (80, 0.1)}
"""The number of messages, and the seconds that a client pauses before each."""

_MAIN = ("service_throttle_time=1s", "transport_retry_time=1s", "qmgr_ipc_timeout=5s")


def run(scale: Scale, mode: Mode) -> Row:
    """The campaign of LMTP."""
    row = mode.row("lmtp")
    with (
        account.folder("pipehandler-pg-") as folder,
        PostgreSQL(folder / "16", 16, FAST).start() as server,
        Database.fresh(server) as database,
        mail_host(row, database.conninfo, *_MAIN) as host,
    ):
        host.use_lmtp()
        host.reload()
        with Service(host.handler) as service:
            host_faults = HostFaults(host, service)

            def restart_database() -> None:
                server.stop()
                time.sleep(random.uniform(0, 0.5))
                server.start()

            def kill_session() -> None:
                database.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'pipehandler' AND usename <> current_user"
                )

            def kill_receiver() -> None:
                send(Receiving(host.handler, service).receiver(), signal.SIGKILL)

            def kill_client() -> None:
                wait_until(lambda: clients() or not load.going_on, "an lmtp(8) or a pipe(8)")
                for pid in clients()[:1]:
                    send(pid, signal.SIGKILL)

            def clients() -> list[int]:
                master = int((host.folder / "queue/pid/master.pid").read_text())
                return [pid for pid in children(master) if name(pid) in ("lmtp", "pipe")]

            by_lmtp = host.postconf("-h", "virtual_transport").strip()

            def switch(transport: str) -> None:
                host.postconf("-e", f"virtual_transport={transport}")
                host.reload()

            faults: list[Callable[[], None]] = [
                *(host_faults.kill_worker, host_faults.reload_service, kill_session, host_faults.kill_supervisor),
                *(kill_client, host_faults.restart_service, restart_database, kill_receiver),
                *(lambda: switch("pipehandler"), lambda: switch(by_lmtp)),
            ]
            often = [*faults, *[host_faults.kill_worker, kill_receiver, kill_client, kill_session] * 4]
            count, pause = _LOAD[scale]
            with Load(host, count, pause=pause) as load:
                for make in faults:
                    make()
                    row.points += 1
                while not scale.short and load.going_on:
                    random.choice(often)()
                    row.points += 1
                    time.sleep(random.uniform(0, 1))
            drain(host)
            load.ledger.check(database, row)
    return row
