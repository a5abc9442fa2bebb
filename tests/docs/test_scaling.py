"""docs/scaling.md: its commands, on databases of their own; where a command names a server, the place of one is put in."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path

from click.testing import CliRunner
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.postgresql import PostgreSQL, binaries
from harness.shards import PROXY_VERSION, Shards

from pipehandler.cli import cli

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
COMMANDS = [
    shlex.split(command.replace("\\\n", " "))[1:]
    for block in re.findall(r"^ *```text\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    for command in re.findall(r"^ *(pipehandler (?:.*\\\n)*.*)$", block, re.MULTILINE)
]

MOVE = [
    block for block in re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "pg_ctlcluster" in block
]

_AS_DEBIAN = """
runuser() { shift 3; "$@"; }
pg_createcluster() { mkdir DATA && chmod 700 DATA; }
pg_ctlcluster() { pg_ctl -D DATA -w -s -l "$PGHOST/log" -o "-p $PGPORT -k $PGHOST" "$3"; }
"""


def _in_shell(block: str, server: PostgreSQL, old: PostgreSQL) -> None:
    """Run a block of the page on the machine of `server`: one of db1, or of db2, which is made from it."""
    text = (_AS_DEBIAN + block).replace("/var/lib/postgresql/15/main", "DATA").replace("DATA", str(server.data))
    text = text.replace("host=db1", f"host={old.folder} port={old.port}")
    path = f"{binaries()[PROXY_VERSION]}:{os.environ['PATH']}"
    where = {"PGHOST": str(server.folder), "PGPORT": str(server.port), "PGUSER": "postgres", "PATH": path}
    words = account.command(["bash", "-euc", text])
    subprocess.run(words, env=where, cwd="/", check=True, timeout=60, stdout=subprocess.DEVNULL)


@contextmanager
def _moved(old: PostgreSQL, databases: list[Database]) -> Iterator[None]:
    """The server with these databases moves to another machine, and comes back at the end."""
    with account.folder("pipehandler-db2-") as folder:
        account.give(folder)
        new = copy(old)
        new.folder, new.data, new.port = folder, folder / "data", account.free_port()
        on_new, on_old, promote = MOVE
        _in_shell(on_new, new, old)
        try:
            _in_shell(on_old, old, old)
            _in_shell(promote, new, old)
            for database in databases:
                database.move(new)
            yield
        finally:
            new.run("pg_ctl", "-D", str(new.data), "-m", "immediate", "stop")
            for database in databases:
                database.move(old)
            (old.data / "postgresql.auto.conf").write_text("")
            old.stop()
            old.start()


def test_commands(shards: Shards) -> None:
    """The proxy of two shards is made, checked, read by address and number, and told that a shard has moved."""
    with ExitStack() as stack:
        servers = [shards.proxy.server, *(shard.server for shard in shards.of[:2])]
        proxy, first, second = (stack.enter_context(Database.fresh(server)) for server in servers)
        places = {"proxy": proxy, "db0": first, "db1": second, "db2": second}
        handler = Handler(stack.enter_context(account.folder("pipehandler-")), proxy.conninfo)
        handler.configure(proxy.conninfo, database={"admin_conninfo": proxy.admin})

        def run(words: list[str]) -> tuple[int, str]:
            """Run a command, with the places of these servers; return its status and what it printed."""
            put = [re.sub(r"host=(\w+) .*", lambda found: places[found[1]].admin, word) for word in words]
            done = CliRunner().invoke(cli, ["--config", str(handler.config), *put])
            return done.exit_code, done.output

        make, check, by_address, by_number, move, nothing_lost = COMMANDS
        status, output = run(make)
        assert status == 0, output
        message = b"Message-ID: <1@example.org>\n\nfirst\n"
        assert handler.deliver(message, "user@example.com").status == 0
        findings = run(check)[1]
        assert not re.findall(r"^shard-(?!fsync|full-page)\S+:.*", findings, re.MULTILINE)
        status, output = run(by_address)
        assert (status, "user@example.com" in output) == (0, True), output
        assert run(by_number)[0] == 0
        addresses = [f"user{number}@example.com" for number in range(8)]  # some on each shard
        assert [handler.deliver(message, address).status for address in addresses] == [0] * len(addresses)
        stack.enter_context(_moved(servers[2], [second]))
        status, output = run(move)
        assert status == 0, output
        assert run(nothing_lost)[0] == 0
        for address in ("user@example.com", *addresses):
            assert handler.deliver(message, address).output.startswith("2.0.0 stored before")
        assert len(second.rows("SELECT FROM pipehandler.delivery WHERE recipient = ANY (%s)", addresses)) > 0
