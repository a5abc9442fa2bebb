"""docs/high-availability.md: the settings on the page, in front of a real pair of servers."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fault.continuous import Load, MailHost, mail_hosts
from fault.ledger import Ledger, Row
from fault.load import Load as SmtpLoad
from fault.load import Posted
from fault.patroni import Stored
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.patroni import ONE, TWO, USED, Node, Patroni, block, blocks, patroni
from harness.pgbouncer import pgbouncer
from harness.postfix import Postfix
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.preloaded import PROGRAM
from harness.service import wait_until

from pipehandler.settings.config_file import load
from pipehandler.store.connection import Store
from pipehandler.store.conninfo import parameters
from pipehandler.store.errors import StoreError

SETTINGS = {
    name: value
    for name, value in (
        line.split(" = ", 1) for line in block("[databases]").partition("[pgbouncer]\n")[2].splitlines() if line
    )
    if name not in ("listen_addr", "listen_port", "unix_socket_dir", "auth_type", "auth_file")
}
"""Of PgBouncer on the page, without those that belong to its host."""


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
    After a promotion PgBouncer has to reconnect: it reports of its server what it learned from its first connection."""
    primary, standby, database = servers_of_pair
    with ExitStack() as stack:
        folders, ports = [], []
        for server in (standby, primary):
            folder = stack.enter_context(account.folder("pipehandler-bouncer-"))
            behind = Database(server, database.name)
            settings = {**SETTINGS, "unix_socket_dir": str(folder)}
            ports.append(_port(stack.enter_context(pgbouncer(folder, behind, **settings))))
            folders.append(folder)
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

        def stored() -> bool:
            (handler.state / "outage").unlink(missing_ok=True)
            return handler.deliver(b"Message-ID: <2@example.org>\n\nsecond\n").status == 0

        assert not stored()
        (command,) = re.findall(r"-d pgbouncer -c (\w+)$", block("#!/bin/sh"), re.MULTILINE)
        standby.run("psql", "-h", str(folders[0]), "-p", ports[0], "-U", "pgbouncer", "-d", "pgbouncer", "-c", command)
        wait_until(stored, "the delivery after the promotion")
        assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2


@pytest.mark.parametrize("through", ["dbname=mail", "port=6432"])
def test_configuration(through: str, tmp_path: Path) -> None:
    """The keys of both configurations exist, and their conninfo names three servers."""
    file = tmp_path / "pipehandler.toml"
    file.write_text(block(f'[database]\nconninfo = "host=db1,db2,db3 {through}'))
    database = load(str(file)).database
    assert (database.connect_timeout, database.mail_hosts, database.servers) == (2, 2, 2)
    assert parameters(database.conninfo)["host"] == "db1,db2,db3"


@pytest.mark.long
def test_two_mail_hosts() -> None:
    """Every block of the page at once: two mail hosts, one of them through PgBouncer, in front of three servers under Patroni. Mail
    is stored and `follow` is woken after a switchover, after the leader's end, and when only PgBouncer survived it; `check` reports
    nothing but the new timeline, until `restored` is run."""
    with patroni(strict=True) as cluster, mail_hosts(cluster) as hosts:
        assert _codes(hosts) == set()
        for name, change in _CHANGES.items():
            leader = cluster.leader()
            assert leader
            change(cluster, leader)
            for host in hosts:
                reader = Store(host.handler.conninfo)
                wait_until(lambda reader=reader: _listens(reader), f"{name}: a reader {host.way}")  # type: ignore[misc]
                load = Load(host, Ledger(), 1)
                load.run()
                assert (name, host.way, len(load.acknowledged)) == (name, host.way, 1)
                assert reader.wait(60)
                reader.close()
            if not leader.processes():
                cluster.run(leader)
            cluster.settle()
            assert cluster.leader() is not leader
            assert _codes(hosts) == {"restored"}
            hosts[0].run("restored", "--nothing-lost")
            assert _codes(hosts) == set()


@pytest.mark.long
def test_through_postfix() -> None:
    """As the page says it, with a Postfix on both mail hosts whose pauses are the usual ones: `check` finds nothing; the leader of a
    strict pair is killed under load, and mail waits in both queues; when its server is back, one `postqueue -f` on each host
    delivers it. Nothing is lost, doubled or bounced. Each block of the page was used."""
    with patroni(strict=True, servers=(ONE, TWO)) as cluster:
        file = cluster.mail[0].write("dynamic.yml", block("ttl: "))
        cluster.patronictl("edit-config", "mail", "--apply", str(file), "--force")
        shown = re.sub("[\"']", "", cluster.patronictl("show-config", "mail")).splitlines()
        assert {line.replace('"', "") for line in block("ttl: ").splitlines()} <= set(shown)
        with mail_hosts(cluster, with_postfix=True) as hosts:
            assert [_findings(host) for host in hosts] == [[], []]
            _through_postfix(cluster, hosts)
            hosts[0].run("restored", "--nothing-lost")
            assert [_findings(host) for host in hosts] == [[], []]
    assert set(blocks()) == USED


_COUNT = 200


def _through_postfix(cluster: Patroni, hosts: tuple[MailHost, MailHost]) -> None:
    """Lose the leader and get it back while both hosts are sent messages; prints what became of them."""
    queues = [host.postfix for host in hosts if host.postfix]
    ledger, loads = Posted(), []
    for number, (host, postfix) in enumerate(zip(hosts, queues, strict=True)):
        with host.node.inside():
            loads.append(SmtpLoad(postfix, _COUNT, clients=2, pause=0.1, first=1 + number * _COUNT, ledger=ledger))
    cluster.wait(lambda: all(each.accepted > _COUNT // 3 for each in loads), 120)
    leader = cluster.leader()
    assert leader
    leader.kill()
    killed = time.monotonic()
    for each in loads:
        each.finish()
    cluster.wait(lambda: cluster.leader() not in (None, leader), 120)
    wait_until(lambda: all(map(_is_deferred, queues)), "the deferral of all that is queued")
    # The new timeline is in pg_control after the checkpoint that follows a promotion.
    expected = [["restored", "standby-away"]] * 2
    wait_until(lambda: [_findings(host) for host in hosts] == expected, f"the findings {expected}")
    waiting = [len(queue.queue()) for queue in queues]
    back = time.monotonic()
    cluster.run(leader)
    cluster.settle()
    settled = time.monotonic()
    for queue in queues:
        queue.flush()
    wait_until(lambda: not any(queue.queue() for queue in queues), "the delivery of all that is queued")
    row = Row("through Postfix")
    ledger.check(Stored(cluster), row)  # type: ignore[arg-type]
    attempts = Counter(attempt["status"] for queue in queues for attempt in queue.deliveries())
    sys.stderr.write(
        f"{row.sent} deliveries sent, {row.lost} lost, {row.doubled} doubled; attempts: {dict(attempts)}; {waiting} messages waited;"
        f" {back - killed:.1f} s until the server was started again, {settled - back:.1f} s until it followed,"
        f" {time.monotonic() - settled:.1f} s until the queues were empty\n"
    )
    assert (row.lost, row.doubled, row.findings) == (0, 0, [])
    assert set(attempts) == {"sent", "deferred"}


def _is_deferred(postfix: Postfix) -> bool:
    """Whether all that is queued waits for its next attempt, and something does."""
    return {entry["queue_name"] for entry in postfix.queue()} == {"deferred"}


def _findings(host: MailHost) -> list[str]:
    """What `check` finds on a mail host, as root runs it there."""
    assert host.postfix
    command: list[str | Path] = [
        PROGRAM,
        "--config",
        host.handler.config,
        "check",
        "--config-directory",
        host.postfix.config,
        "--json",
    ]
    host.postfix.settle()
    with host.node.inside():
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return sorted({finding["code"] for finding in json.loads(done.stdout)} - {"fsync"})  # which is off in tests


def _switch_over(cluster: Patroni, leader: Node) -> None:
    cluster.patronictl(
        "switchover", "mail", "--primary", leader.name, "--candidate", _other(cluster, leader), "--force"
    )


def _end(_: Patroni, leader: Node) -> None:
    leader.kill()


def _end_all_but_pgbouncer(cluster: Patroni, leader: Node) -> None:
    leader.kill("pgbouncer")
    cluster.wait(lambda: cluster.leader() not in (None, leader), 60)
    leader.start("patroni", str(leader.folder / "patroni.yml"))


_CHANGES = {"switchover": _switch_over, "end": _end, "end of all but PgBouncer": _end_all_but_pgbouncer}


def _other(cluster: Patroni, leader: Node) -> str:
    return next(name for name, node in cluster.servers.items() if node is not leader)


def _listens(reader: Store) -> bool:
    try:
        reader.listen()
    except StoreError:
        reader.close()
        return False
    return True


def _codes(hosts: Iterable[MailHost]) -> set[str]:
    """What `check` reports about the database, on either mail host. They are without Postfix, which is another page."""
    found = set()
    for host in hosts:
        findings = json.loads(host.run("check", "--json"))
        found |= {finding["code"] for finding in findings} & _OF_THE_DATABASE
    return found


_OF_THE_DATABASE = {
    *("one-server-only", "too-few-servers", "standby-away", "replication-hidden", "standby", "database", "restored"),
    *("connections", "connection-limit", "mail-hosts"),
}
