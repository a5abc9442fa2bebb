"""Three PostgreSQL servers under Debian's Patroni with etcd, each node in a network namespace of its own, on one bridge."""

import json
import os
import shutil
import signal
import subprocess
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from . import account
from .missing import missing
from .network import enter

ETCD, MAIL, ONE, TWO, THREE = "etcd", "mail", "db1", "db2", "db3"
ADDRESSES = {ETCD: "198.18.0.10", ONE: "198.18.0.11", TWO: "198.18.0.12", THREE: "198.18.0.13", MAIL: "198.18.0.20"}
"""Of the nodes (RFC 2544: reserved for tests). The handlers are in MAIL."""

PROGRAMS = Path("/usr/lib/postgresql/15/bin")

DYNAMIC = """\
ttl: 20
loop_wait: 5
retry_timeout: 5
maximum_lag_on_failover: 1048576
synchronous_mode: true
synchronous_mode_strict: {strict}
postgresql:
  use_pg_rewind: true
"""
"""Patroni's configuration of the cluster, as docs/high-availability.md has it."""

TTL, LOOP_WAIT = 20, 5
"""Seconds, of DYNAMIC."""

_CONFIGURATION = """
scope: pair
name: {name}
restapi: {{listen: "{address}:8008", connect_address: "{address}:8008"}}
etcd3: {{host: "{etcd}:2379", protocol: http}}
bootstrap:
  dcs:
{dynamic}      parameters: {{max_connections: 60, wal_keep_size: 256MB, wal_log_hints: "on"}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}]
  pg_hba: ["local all all trust", "host all all 198.18.0.0/24 trust", "host replication all 198.18.0.0/24 trust"]
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
"""


class Node:
    """One node: its namespace, and the program that runs in it."""

    def __init__(self, pair: "Patroni", name: str) -> None:
        self.name, self.address = name, ADDRESSES[name]
        self.namespace = f"{pair.prefix}-{name}"
        self.folder = pair.folder / name
        self.folder.mkdir()
        account.give(self.folder)
        self._hub = f"{pair.prefix}-hub"
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, *command: str) -> None:
        """Start a program there, as the servers' account, in a process group of its own."""
        with (self.folder / "log").open("ab") as log:
            self._running = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.namespace),
                    *("setpriv", "--reuid", account.NAME, "--regid", "nogroup", "--clear-groups", *command),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """Everything that runs in the namespace."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to everything there."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """As if the power failed: everything there ends at once."""
        self.signal(signal.SIGSTOP)  # or they restart each other
        while self.processes():
            self.signal(signal.SIGKILL)
            if self._running:
                self._running.wait(30)
            time.sleep(0.05)

    def connected(self, up: bool) -> None:
        """Pull the cable of the node out, or put it in again."""
        subprocess.run(["ip", "-n", self._hub, "link", "set", self.name, "up" if up else "down"], check=True)


class Patroni:
    """The whole: three servers, etcd, and an empty node for the handlers. strict: synchronous_mode_strict."""

    def __init__(self, folder: Path, strict: bool) -> None:
        self.folder, self.strict = folder, strict
        self.prefix = f"pipehandler-{os.getpid()}"
        self.etcd, self.mail = Node(self, ETCD), Node(self, MAIL)
        self.servers = {name: Node(self, name) for name in (ONE, TWO, THREE)}

    @property
    def nodes(self) -> list[Node]:
        """All nodes."""
        return [self.etcd, *self.servers.values(), self.mail]

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
        """Start etcd and the servers, and wait for a leader with a synchronous standby."""
        client = f"http://{ADDRESSES[ETCD]}:2379"
        self.etcd.start(
            *("etcd", "--data-dir", str(self.etcd.folder / "data"), "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
        )
        for node in self.servers.values():
            self.run(node)
            if node.name == ONE:
                self.wait(lambda: self.leader() is not None, 120)
        self.settle()

    def run(self, node: Node) -> None:
        """Start Patroni on a node."""
        configuration = node.folder / "patroni.yml"
        configuration.write_text(
            _CONFIGURATION.format(
                name=node.name,
                address=node.address,
                etcd=ADDRESSES[ETCD],
                dynamic=textwrap.indent(DYNAMIC.format(strict=str(self.strict).lower()), "    "),
                folder=node.folder,
                programs=PROGRAMS,
            )
        )
        node.start("patroni", str(configuration))

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

    def settle(self) -> None:
        """Wait until there is a leader, and a standby that it waits for."""
        self.wait(lambda: {each.get("role") for each in self.cluster()} >= {"leader", "sync_standby"}, 180)

    def wait(self, done: Any, seconds: float) -> None:
        """Wait for a condition; what the nodes logged, if it does not come true."""
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                logs = {
                    node.name: (node.folder / "log").read_text("utf-8", "replace")[-3000:] for node in self.nodes[:3]
                }
                raise TimeoutError("\n".join(f"{name}:\n{text}" for name, text in logs.items()))
            time.sleep(0.3)

    def conninfo(self, name: str = "", dbname: str = "postgres", user: str = "postgres") -> str:
        """How to connect to one server; without a name, to whichever accepts writes."""
        hosts = ADDRESSES[name] if name else ",".join(ADDRESSES[each] for each in self.servers)
        more = "" if name else " target_session_attrs=read-write"
        return f"host={hosts} port=5432 dbname={dbname} user={user}{more}"


@contextmanager
def patroni(strict: bool) -> Iterator[Patroni]:
    """A pair; this thread, and those that it starts, are in the namespace of the handlers meanwhile."""
    for program in ("patroni", "etcd", "ip", "setpriv"):
        if shutil.which(program) is None:
            missing(program)
    if not PROGRAMS.exists():
        missing("PostgreSQL 15 of Debian")
    with ExitStack() as stack:
        pair = Patroni(stack.enter_context(account.folder("pipehandler-patroni-")), strict)
        stack.callback(pair.close)
        pair.network()
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, outside)
        inside = os.open(f"/run/netns/{pair.mail.namespace}", os.O_RDONLY)
        try:
            enter(inside)
        finally:
            os.close(inside)
        stack.callback(enter, outside)
        pair.start()
        yield pair
