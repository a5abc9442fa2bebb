"""The host of the server is cut off in the middle of Postfix's lookup of a recipient."""

import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from harness import account
from harness.database import Database
from harness.missing import missing
from harness.network import cable, inside
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import stuck, wait_until

from pipehandler.cli import cli


@pytest.mark.long
def test_the_lookup_ends(folder: Path) -> None:
    """Nothing is on its way that the server could fail to acknowledge, and Postfix itself would wait for hours. The lookup fails,
    so the client gets a 451; when the cable is in again, it is answered."""
    if shutil.which("postmap") is None:
        missing("postmap")
    with cable() as between, account.folder("pipehandler-pg-") as where:
        server = PostgreSQL(where / "server", VERSION, {**FAST, "listen_addresses": between.address})
        with (server.data / "pg_hba.conf").open("a") as file:
            file.write("host all all 198.18.1.0/24 trust\n")
        with inside(between.far):
            server.start()
        with server, Database.fresh(server) as database:
            database.execute("SELECT pipehandler.lease_address('a@example.com')")
            config = folder / "lookup.toml"
            config.write_text(
                f'database.conninfo = "host={between.address} port={server.port} dbname={database.name}"\n'
            )
            table = folder / "recipients.cf"
            printed = CliRunner().invoke(cli, ["--config", str(config), "postfix", "pgsql-recipients.cf"])
            table.write_text(printed.stdout)
            command = ["postmap", "-q", "a@example.com", f"pgsql:{table}"]
            with psycopg.connect(database.admin) as other:
                other.execute("LOCK TABLE pipehandler.address")
                with inside(between.near):
                    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                stuck(database)
                with inside(between.near):
                    wait_until(_is_acknowledged)
                between.pull()
                output, errors = running.communicate(timeout=60)
            assert (running.returncode != 0, output) == (True, "")
            assert "query failed" in errors
            between.plug()
            with inside(between.near):
                answered = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert (answered.returncode, answered.stderr) == (0, "")
            assert answered.stdout.strip()


def _is_acknowledged() -> bool:
    """Whether the server has all that was sent, in the network of this thread (proc_net_tcp: the queues are the fifth column)."""
    connections = [line.split() for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]]
    return bool(connections) and all(columns[4].startswith("00000000:") for columns in connections)
