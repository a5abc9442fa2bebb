"""docs/high-availability.md: the settings on the page, in front of a real pair of servers."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.patroni import DYNAMIC
from harness.pgbouncer import pgbouncer
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import wait_until

from pipehandler.settings.config import load
from pipehandler.store.connection import Store

from .pages import REPOSITORY

PAGE = (REPOSITORY / "docs" / "high-availability.md").read_text("utf-8")


def block(first: str) -> str:
    """The text of the block that begins with this line."""
    (found,) = re.findall(rf"^```text\n({re.escape(first)}\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


SETTINGS = dict(line.split(" = ", 1) for line in block("pool_mode = session").splitlines())


@pytest.fixture(scope="module")
def servers_of_pair() -> Iterator[tuple[PostgreSQL, PostgreSQL, Database]]:
    """A primary and its synchronous standby."""
    with account.folder("pipehandler-pg-") as folder:
        primary = PostgreSQL(folder / "primary", VERSION, FAST).start()
        with primary, primary.standby(folder / "standby") as standby, Database.fresh(primary) as database:
            primary.synchronous()
            yield primary, standby, database
            database.server.psql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            database.server.reload()


def _port(conninfo: str) -> str:
    return str(re.findall(r"port=(\d+)", conninfo)[0])


def test_pgbouncer(servers_of_pair: tuple[PostgreSQL, PostgreSQL, Database], tmp_path: Path) -> None:
    """Through a PgBouncer at each server, the standby's first: mail is stored on the primary, and a notification arrives.
    After a promotion mail is stored through a PgBouncer that was started again: it reports of its server what it learned
    from its first connection."""
    primary, standby, database = servers_of_pair
    with ExitStack() as stack:
        ports = []
        for server in (standby, primary):
            folder = stack.enter_context(account.folder("pipehandler-bouncer-"))
            behind = Database(server, database.name)
            ports.append(_port(stack.enter_context(pgbouncer(folder, behind, **SETTINGS))))
        home = stack.enter_context(account.folder("pipehandler-"))
        conninfo = (
            f"host=127.0.0.1,127.0.0.1 port={','.join(ports)} dbname={database.name} user=pipehandler"
            " target_session_attrs=read-write"
        )
        handler = Handler(home, conninfo)
        reader = Store(conninfo)
        reader.listen()
        assert handler.deliver(b"Message-ID: <1@example.org>\n\nfirst\n").status == 0
        assert reader.wait(60)
        reader.close()
        primary.stop()
        standby.promote()
        database.move(standby)
        folder = stack.enter_context(account.folder("pipehandler-bouncer-"))
        again = _port(stack.enter_context(pgbouncer(folder, database, **SETTINGS)))
        handler.configure(conninfo.replace(ports[0], again))

        def stored() -> bool:
            (handler.state / "outage").unlink(missing_ok=True)
            return handler.deliver(b"Message-ID: <2@example.org>\n\nsecond\n").status == 0

        wait_until(stored, "the delivery after the promotion")
        assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2


def test_configuration(tmp_path: Path) -> None:
    """The keys of the configuration exist, and the conninfo is one."""
    file = tmp_path / "pipehandler.toml"
    file.write_text(block("[database]"))
    assert load(str(file)).database[3:] != load(str(file)).database._replace(mail_hosts=1, servers=0)[3:]


def test_patroni_of_the_campaign() -> None:
    """The campaign runs Patroni with the settings of the page."""
    assert DYNAMIC.format(strict="true") == block("ttl: 20")
