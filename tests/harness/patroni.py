"""PostgreSQL servers under Debian's Patroni with etcd, a PgBouncer beside each, and mail hosts: each node in a network namespace of
its own, on one bridge. The configuration is that of docs/high-availability.md."""

import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from . import account
from .missing import missing
from .network import inside

ETCD, MAIL_ONE, MAIL_TWO, ONE, TWO, THREE = "etcd", "mail1", "mail2", "db1", "db2", "db3"
ADDRESSES = {
    ETCD: "198.18.0.10",
    ONE: "198.18.0.11",
    TWO: "198.18.0.12",
    THREE: "198.18.0.13",
    MAIL_ONE: "198.18.0.21",
    MAIL_TWO: "198.18.0.22",
}
"""Of the nodes (RFC 2544: reserved for tests)."""

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
PAGE = Path(__file__).parents[2] / "docs" / "high-availability.md"
PASSWORD = "secret of pipehandler"
"""Of the handlers' role."""

_BOUNCER = "/usr/sbin/pgbouncer"
_SOCKETS = "/run/postgresql"
_LIMITS = "max_connections: 100\n    wal_keep_size: 256MB\n"

_CONFIGURATION = """
scope: mail
name: {name}
restapi: {{listen: "{address}:8008", connect_address: "{address}:8008"}}
{store}bootstrap:
  dcs:
{dynamic}
  initdb: [{{encoding: UTF8}}, {{locale: C}}]
  pg_hba:
  - local all pipehandler scram-sha-256
  - local all all trust
  - host all pipehandler 198.18.0.0/24 scram-sha-256
  - host all all 198.18.0.0/24 trust
  - host replication all 198.18.0.0/24 trust
postgresql:
  listen: "{address}:5432"
  connect_address: "{address}:5432"
  data_dir: {folder}/data
  bin_dir: {programs}
  pgpass: {folder}/pgpass
  authentication:
    superuser: {{username: postgres, password: x}}
    replication: {{username: replicator, password: x}}
    rewind: {{username: rewinder, password: x}}
  parameters: {{unix_socket_directories: {folder}, fsync: "off"}}
{callbacks}"""


def blocks() -> list[str]:
    """The blocks of the page, those with its configuration and its queries."""
    return re.findall(r"^```text\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def block(first: str) -> str:
    """The block of the page that begins with this text."""
    (found,) = (each for each in blocks() if each.startswith(first))
    USED.add(found)
    return found


USED: set[str] = set()
"""The blocks that were used so far."""


def _seconds(key: str) -> int:
    return int(re.findall(rf"^{key}: (\d+)$", PAGE.read_text("utf-8"), re.MULTILINE)[0])


TTL, LOOP_WAIT = _seconds("ttl"), _seconds("loop_wait")
"""Of the page."""


def _name(pid: int) -> str:
    """The name of a process; "" if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


class Node:
    """One node: its namespace, and the programs that run in it."""

    def __init__(self, cluster: "Patroni", name: str) -> None:
        self.name, self.address = name, ADDRESSES[name]
        self.namespace = f"{cluster.prefix}-{name}"
        self.folder = cluster.folder / name
        self.folder.mkdir()
        account.give(self.folder)
        self._hub = f"{cluster.prefix}-hub"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> None:
        """Start a program there, as the servers' account, in a process group of its own."""
        with (self.folder / "log").open("ab") as log:
            running = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.namespace),
                    *("setpriv", "--reuid", account.NAME, "--regid", "nogroup", "--clear-groups", *command),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self._running.append(running)

    def inside(self) -> AbstractContextManager[None]:
        """What this thread opens and starts meanwhile belongs to this node, threads and processes included."""
        return inside(self.namespace)

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file of the page there; its paths become those of the node."""
        file = self.folder / name
        for path in (_SOCKETS, "/etc/pgbouncer", "/etc/patroni", "/etc/pipehandler"):
            text = text.replace(path, str(self.folder))
        file.write_text(text)
        file.chmod(mode)
        account.give(file)
        return file

    def processes(self, but: str = "") -> list[int]:
        """Everything that runs in the namespace; `but`: without programs of this name."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
        return [pid for pid in map(int, found.stdout.split()) if _name(pid) != but]

    def signal(self, number: signal.Signals, but: str = "") -> None:
        """Send a signal to all of these."""
        for pid in self.processes(but):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, but: str = "") -> None:
        """As if the power failed: all of these end at once."""
        self.signal(signal.SIGSTOP, but)  # or they restart each other
        while self.processes(but):
            self.signal(signal.SIGKILL, but)
            time.sleep(0.05)
        left = self.processes()
        for each in self._running:
            if each.pid not in left:
                each.wait(30)
        self._running = [each for each in self._running if each.returncode is None]

    def connected(self, up: bool) -> None:
        """Pull the cable of the node out, or put it in again."""
        subprocess.run(["ip", "-n", self._hub, "link", "set", self.name, "up" if up else "down"], check=True)


class Patroni:
    """The whole: the servers, etcd, and two empty nodes for the mail hosts. strict: synchronous_mode_strict."""

    def __init__(self, folder: Path, strict: bool, servers: Sequence[str]) -> None:
        self.folder, self.strict = folder, strict
        self.prefix = f"pipehandler-{os.getpid()}{'-strict' if strict else ''}"
        self.etcd = Node(self, ETCD)
        self.mail = [Node(self, name) for name in (MAIL_ONE, MAIL_TWO)]
        self.servers = {name: Node(self, name) for name in servers}
        self._bouncers = False

    @property
    def nodes(self) -> list[Node]:
        """All nodes."""
        return [self.etcd, *self.servers.values(), *self.mail]

    def network(self) -> None:
        """Connect the nodes."""
        hub = f"{self.prefix}-hub"
        commands = [f"netns add {hub}", *(f"netns add {node.namespace}" for node in self.nodes)]
        commands += [f"-n {hub} link add bridge type bridge", f"-n {hub} link set bridge up"]
        for node in self.nodes:
            commands += [
                f"link add {node.name} netns {hub} type veth peer name eth0 netns {node.namespace}",
                f"-n {hub} link set {node.name} master bridge up",
                f"-n {node.namespace} link set lo up",
                f"-n {node.namespace} addr add {node.address}/24 dev eth0",
                f"-n {node.namespace} link set eth0 up",
            ]
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)

    def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.kill()
        for name in [*(node.namespace for node in self.nodes), f"{self.prefix}-hub"]:
            subprocess.run(["ip", "netns", "del", name])

    def start(self) -> None:
        """Start etcd and the servers, and wait for a leader with all its synchronous standbys."""
        client = f"http://{ADDRESSES[ETCD]}:2379"
        self.etcd.start(
            *("etcd", "--data-dir", str(self.etcd.folder / "data"), "--unsafe-no-fsync", "--enable-v2"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
        )
        for node in self.servers.values():
            self.run(node)
            if node.name == ONE:
                self.wait(lambda: self.leader() is not None, 120)
        self.settle()

    def run(self, node: Node) -> None:
        """Start Patroni on a node, and PgBouncer if it is used."""
        node.write("pgbouncer-reconnect", block("#!/bin/sh"), 0o755)
        dynamic = block(f"ttl: {TTL}").replace("parameters:\n", f"parameters:\n    {_LIMITS}")
        configuration = node.write(
            "patroni.yml",
            _CONFIGURATION.format(
                name=node.name,
                address=node.address,
                store=block("etcd:").replace("etcd1:2379", f"{ADDRESSES[ETCD]}:2379"),
                dynamic=textwrap.indent(dynamic.replace("strict: true", f"strict: {str(self.strict).lower()}"), "    "),
                folder=node.folder,
                programs=PROGRAMS,
                callbacks=block("postgresql:").partition("\n")[2],
            ),
        )
        node.start("patroni", str(configuration))
        if self._bouncers:
            node.start(_BOUNCER, "-q", str(node.folder / "pgbouncer.ini"))

    def bounce(self) -> None:
        """Start PgBouncer on each server, for the password that the handlers' role has now."""
        self._bouncers = True
        query = block('SELECT format(\'"%s" "%s"\', rolname, rolpassword)')
        with psycopg.connect(self.conninfo()) as connection:
            lines = [line for (line,) in connection.execute(query.encode()).fetchall()]
        for node in self.servers.values():
            node.write("userlist.txt", "".join(f"{line}\n" for line in lines), 0o600)
            file = node.write("pgbouncer.ini", block("[databases]"))
            node.start(_BOUNCER, "-q", str(file))

    def patronictl(self, *arguments: str) -> str:
        """Run patronictl; this thread is in the network of a mail host. Returns what it prints."""
        configuration = next(iter(self.servers.values())).folder / "patroni.yml"
        done = subprocess.run(["patronictl", "-c", str(configuration), *arguments], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"patronictl {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def cluster(self) -> list[dict[str, Any]]:
        """The members as any living node sees them; [] if none answers."""
        for node in self.servers.values():
            url = f"http://{node.address}:8008/cluster"
            with suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=2) as answer:
                members: list[dict[str, Any]] = json.load(answer)["members"]
                return members
        return []

    def leader(self) -> Node | None:
        """The node that is the leader and accepts writes."""
        for node in self.servers.values():
            with suppress(psycopg.Error), psycopg.connect(self.conninfo(node.name), connect_timeout=2) as connection:
                if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,):
                    return node
        return None

    def settle(self, servers: int = 0) -> None:
        """Wait until all servers, or so many, are there: a leader, and its synchronous standbys."""
        standbys = (servers or len(self.servers)) - 1
        self.wait(lambda: self._standbys() == standbys, 180)

    def _standbys(self) -> int:
        """The synchronous standbys, if Patroni and PostgreSQL agree about them; -1 without a leader."""
        known = Counter(each.get("role") for each in self.cluster())
        leader = self.leader()
        if leader is None or known["leader"] != 1:
            return -1
        with psycopg.connect(self.conninfo(leader.name), connect_timeout=2) as connection:
            ((streaming,),) = connection.execute(
                "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')"
            ).fetchall()
        return int(streaming) if known["sync_standby"] == streaming else -1

    def wait(self, done: Callable[[], object], seconds: float) -> None:
        """Wait for a condition; what the nodes logged, if it does not come true."""
        until = time.monotonic() + seconds
        while not self._is(done):
            if time.monotonic() > until:
                nodes = [self.etcd, *self.servers.values()]
                logs = {node.name: (node.folder / "log").read_text("utf-8", "replace")[-3000:] for node in nodes}
                raise TimeoutError("\n".join(f"{name}:\n{text}" for name, text in logs.items()))
            time.sleep(0.3)

    @staticmethod
    def _is(done: Callable[[], object]) -> bool:
        """Whether the condition holds; not while a server goes away under it."""
        try:
            return bool(done())
        except psycopg.Error:
            return False

    def conninfo(self, name: str = "", dbname: str = "postgres", user: str = "postgres") -> str:
        """How to connect to one server; without a name, to whichever accepts writes."""
        hosts = ADDRESSES[name] if name else ",".join(ADDRESSES[each] for each in self.servers)
        more = "" if name else " target_session_attrs=read-write"
        return f"host={hosts} port=5432 dbname={dbname} user={user}{more}"


@contextmanager
def patroni(strict: bool, servers: Sequence[str] = (ONE, TWO, THREE)) -> Iterator[Patroni]:
    """The cluster; this thread, and those that it starts, are in the network of the first mail host meanwhile."""
    for program in ("patroni", "etcd", "ip", "setpriv", _BOUNCER):
        if shutil.which(program) is None:
            missing(program)
    if not PROGRAMS.exists():
        missing("PostgreSQL 15 of Debian")
    with ExitStack() as stack:
        cluster = Patroni(stack.enter_context(account.folder("pipehandler-patroni-")), strict, servers)
        stack.callback(cluster.close)
        cluster.network()
        stack.enter_context(cluster.mail[0].inside())
        cluster.start()
        yield cluster
