"""The host of the server is cut off in the middle of a delivery."""

from pathlib import Path

from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.network import cable, inside
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import ended, held, stuck


def test_server_is_cut_off_while_it_works(folder: Path) -> None:
    """While a statement runs, nothing is on its way that the server could fail to acknowledge. The connection ends all the same,
    long before the deadline, and the message is stored when the cable is in again."""
    with cable() as between, account.folder("pipehandler-pg-") as where:
        server = PostgreSQL(where / "server", VERSION, {**FAST, "listen_addresses": between.address})
        with (server.data / "pg_hba.conf").open("a") as file:
            file.write("host all all 198.18.1.0/24 trust\n")
        with inside(between.far):
            server.start()
        with server, Database.fresh(server) as database:
            conninfo = f"host={between.address} port={server.port} dbname={database.name} user=pipehandler"
            handler = Handler(folder, conninfo, database={"connect_timeout": 2}, limits={"deadline": 50})
            with held(database):
                with inside(between.near):
                    running = handler.start(handler.command())
                assert running.stdin
                running.stdin.write(b"Message-ID: <1@example.org>\n\nx\n")
                running.stdin.close()
                running.stdin = None
                stuck(database)
                between.pull()
                assert ended(running).status == 75
            assert "outcome=store_unavailable" in handler.log_lines()[-1]
            between.plug()
            handler.end_hold()
            with inside(between.near):
                assert handler.deliver(b"Message-ID: <1@example.org>\n\nx\n").status == 0
            assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1
