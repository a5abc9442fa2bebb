"""Two mail hosts in front of PostgreSQL under Patroni: the first connects to the servers, the second to the PgBouncer beside each.

The clients of `Load` send each message to the handler until it is acknowledged, without Postfix and its pauses, so the longest time
between two acknowledgements is the outage.
"""

import itertools
import os
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from harness import account
from harness.handler import ENVIRONMENT, Handler
from harness.mailhost import MAXPROC
from harness.mailhost import MailHost as WithPostfix
from harness.patroni import ADDRESSES, PASSWORD, Node, Patroni, block
from harness.service import Service

from pipehandler.check.connections import sessions
from pipehandler.postfix import client
from pipehandler.settings.config_file import load
from pipehandler.store.connection import Store
from pipehandler.store.migrate import migrate

from .ledger import Ledger
from .pool import forget_outage

CLIENTS = 4
"""Of each mail host."""

_MAXPROC = 4
_PAUSE = 0.05
_PATIENCE = 300
"""Seconds after which a message that is not acknowledged is given up on."""

_PAUSES = ("queue_run_delay", "minimal_backoff_time", "maximal_backoff_time", "transport_retry_time")
"""Of Postfix, which are the usual ones here."""

_DIRECT = '[database]\nconninfo = "host=db1,db2,db3 dbname'
_THROUGH_PGBOUNCER = '[database]\nconninfo = "host=db1,db2,db3 port=6432'


class MailHost:
    """A mail host: a handler and its service, in the network of a node. postfix: its Postfix, if it has one."""

    def __init__(self, node: Node, handler: Handler, way: str, postfix: WithPostfix | None = None) -> None:
        self.node, self.handler, self.way, self.postfix = node, handler, way, postfix

    def run(self, *arguments: str) -> str:
        """Run a command of the program there, as the handler's account; returns what it prints."""
        command = [str(Path(sys.executable).with_name("pipehandler")), "--config", str(self.handler.config), *arguments]
        with self.node.inside():
            done = subprocess.run(
                account.command(command), capture_output=True, text=True, env=ENVIRONMENT, cwd="/", timeout=120
            )
        return str(done.stdout)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Resident workers meanwhile."""
        with ExitStack() as stack:
            with self.node.inside():
                stack.enter_context(Service(self.handler))
            yield


@contextmanager
def mail_hosts(cluster: Patroni, with_postfix: bool = False) -> Iterator[tuple[MailHost, MailHost]]:
    """Both mail hosts, with a migrated database. Their role has the connection limit that `check` computes.

    with_postfix: each has a running Postfix, whose pauses are the usual ones."""
    with psycopg.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE mail")
        connection.execute("REVOKE TEMPORARY ON DATABASE mail FROM PUBLIC")
    with ExitStack() as stack:
        hosts = []
        for node, first, way in zip(
            cluster.mail, (_DIRECT, _THROUGH_PGBOUNCER), ("direct", "through PgBouncer"), strict=True
        ):
            home = stack.enter_context(account.folder("pipehandler-"))
            hosts.append(_mail_host(cluster, node, home, first, way, with_postfix))
        limit = sessions(load(str(hosts[0].handler.config)), MAXPROC if with_postfix else _MAXPROC)
        store = Store(cluster.conninfo(dbname="mail"), statement_timeout=100)
        migrate(store)
        store.script(
            f"CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT {limit} PASSWORD '{PASSWORD}'"
        )
        store.close()
        cluster.bounce()
        for host in hosts:
            stack.enter_context(host.serving())
            if host.postfix:
                with host.node.inside():
                    host.postfix.start()
                stack.callback(host.postfix.abort)
        yield hosts[0], hosts[1]


def _mail_host(cluster: Patroni, node: Node, home: Path, first: str, way: str, with_postfix: bool) -> MailHost:
    """A mail host with the section of the page that begins with `first`."""
    node.write("pgpass", f"*:*:mail:pipehandler:{PASSWORD}\n", 0o600)
    sections = tomllib.loads(block(first))
    settings = sections["database"]
    addresses = ",".join(ADDRESSES[name] for name in cluster.servers)
    conninfo = settings["conninfo"].replace("db1,db2,db3", addresses).replace("/etc/pipehandler", str(node.folder))
    keys: dict[str, dict[str, object]] = {
        "database": {**settings, "conninfo": conninfo, "admin_conninfo": cluster.conninfo(dbname="mail")},
        "limits": sections["limits"],
        "serve": {"workers": CLIENTS},
    }
    if with_postfix:
        with node.inside():  # the port has to be free there
            postfix = WithPostfix(home, conninfo, **keys)
        postfix.postconf("-X", *_PAUSES)
        if client.shipped():
            postfix.use_client()
        return MailHost(node, postfix.handler, way, postfix)
    handler = Handler(home, conninfo, **keys)
    return MailHost(node, handler.with_client() if client.shipped() else handler, way)


class Load:
    """Clients of one mail host, which send `count` messages. people: the recipients' names begin with it.
    `acknowledged`: when each message was, by the monotonic clock."""

    def __init__(self, host: MailHost, ledger: Ledger, count: int, people: str = "user") -> None:
        self.host = host
        self.count = count
        self.acknowledged: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.given_up = 0
        self._lock = threading.Lock()
        self._messages = iter([_message(people) for _ in range(count)])
        self._ledger = ledger

    def run(self) -> None:
        """Be one client."""
        with self.host.node.inside():
            while (message := self._next()) is not None:
                self._send(*message)

    def _next(self) -> tuple[bytes, str] | None:
        with self._lock:
            message = next(self._messages, None)
            if message is not None:
                self._ledger.send(*message)
            return message

    def _send(self, raw: bytes, recipient: str) -> None:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            forget_outage(self.host.handler)
            status = self.host.handler.deliver(raw, recipient).status
            with self._lock:
                self.statuses[status] += 1
                if status == 0:
                    self.acknowledged.append(time.monotonic())
                    return
            time.sleep(_PAUSE)
        self.given_up += 1

    @property
    def outage(self) -> float:
        """The longest time without an acknowledgement, in seconds."""
        return max((after - before for before, after in itertools.pairwise(sorted(self.acknowledged))), default=0)


_numbers = itertools.count(1)


def _message(people: str) -> tuple[bytes, str]:
    """A message and its recipient."""
    number = next(_numbers)
    raw = f"Message-ID: <{number}@example.org>\nSubject: x\n\n{os.urandom(2000).hex()}\n".encode()
    return raw, f"{people}{number % 50}@example.com"
