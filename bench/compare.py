"""Compare two versions: the CPU time of one delivery in another version and in this one.

    bench/run compare ENVIRONMENT [--rounds 30]

ENVIRONMENT is a virtual environment in which the other version is installed, such as that of a release. Each version
has a database, a configuration and a service of its own on one server. In each round both deliver each kind of message,
cold and to a resident worker, and take turns at being first. A ratio compares figures of one round, so other load on
the machine affects both alike.
"""

import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from cost import cpu
from harness import account
from harness.handler import ENVIRONMENT
from harness.service import wait_until
from mail import html, legacy, newsletter, text
from process import Starter
from report import Aim, Report, Table
from setting import Setting

from pipehandler.ingress.truncation import queue_file_octets

_BATCH = 10  # messages to a worker in each round: a single one takes little more than the noise of the clock
_SIZE = 12_000
KINDS: dict[str, Callable[[int], bytes]] = {
    "text": lambda number: text(number, _SIZE),
    "text and HTML": lambda number: newsletter(number, _SIZE),
    "HTML alone": lambda number: html(number, _SIZE),
    "text in windows-1251": lambda number: legacy(number, _SIZE),
}


_ALL = {"cold": "cold and PostgreSQL", "resident": "resident and PostgreSQL"}
"""What a delivery costs in all: with the processes of the server, which has both databases."""


class Version(NamedTuple):
    """One of the two versions: its commands, and the processes that serve it."""

    cold: list[str]
    resident: list[str]
    serving: tuple[int, ...]


def measure(setting: Setting, environment: Path, *, rounds: int = 30) -> Report:
    """Measure both; raises if a message was not stored."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with ExitStack() as stack:
        starter = stack.enter_context(Starter(setting.new_folder()))
        versions = [stack.enter_context(_version(setting, each)) for each in (environment, Path(sys.prefix))]
        number = 0
        for each in range(rounds + 1):
            for kind, made in KINDS.items():
                messages = [made(number + place) for place in range(1 + _BATCH)]
                number += len(messages)
                order = (0, 1) if each % 2 else (1, 0)
                spent = dict(sorted((which, _spent(setting, starter, versions[which], messages)) for which in order))
                if each:  # the first warms the caches
                    for mode in spent[0]:
                        found[kind, mode].append((spent[0][mode], spent[1][mode]))
    return _report(found, environment, rounds)


def _spent(setting: Setting, starter: Starter, version: Version, messages: list[bytes]) -> dict[str, float]:
    """The seconds that one message costs in each mode: the first is delivered cold, the others to the worker."""
    first, *others = messages
    server = [setting.postgresql.seconds()]
    cold = starter.run(_with_size(version.cold, first), first).cpu
    server.append(setting.postgresql.seconds())
    before = sum(map(cpu, version.serving))
    entrypoint = sum(starter.run(_with_size(version.resident, each), each).cpu for each in others) / len(others)
    service = (sum(map(cpu, version.serving)) - before) / len(others)
    server.append(setting.postgresql.seconds())
    return {
        "cold": cold,
        _ALL["cold"]: cold + server[1] - server[0],
        "resident": entrypoint + service,
        "its entrypoint": entrypoint,
        "its service": service,
        _ALL["resident"]: entrypoint + service + (server[2] - server[1]) / len(others),
    }


def _with_size(command: list[str], message: bytes) -> list[str]:
    """The command for this message: with ${size}, as master.cf has it."""
    place = command.index("--")
    return [*command[:place], f"--size={queue_file_octets(message, 0)}", *command[place:]]


def _report(found: dict[tuple[str, str], list[tuple[float, float]]], environment: Path, rounds: int) -> Report:
    rows: list[list[object]] = []
    aims = []
    for (kind, mode), pairs in found.items():
        before, after = (1000 * statistics.median(pair[which] for pair in pairs) for which in (0, 1))
        ratios = [pair[1] / pair[0] for pair in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append([kind, mode, len(pairs), before, after, middle, low, high])
        if mode in _ALL.values():
            aims.append(Aim(f"CPU of a delivery, of the other version's: {kind}, {mode}", middle, 1.03))
    other = _output(environment / "bin" / "pipehandler", "--version").split()[-1]
    note = (
        f"Messages of {_SIZE:,} octets, to {other} and to this version by turns; medians of {rounds} rounds, and the quartiles of the"
        f" ratio. Cold: the process that pipe(8) starts. Resident: that process, the supervisor and the worker, over {_BATCH} messages"
        " in each round."
    )
    head = ["message", "mode", "rounds", "before ms", "now ms", "ratio", "1st quartile", "3rd quartile"]
    return Report([Table("CPU time of two versions", head, rows, note)], aims)


@contextmanager
def _version(setting: Setting, environment: Path) -> Iterator[Version]:
    """The version that is installed in `environment`, ready for messages."""
    folder = setting.new_folder()
    name = f"version{folder.name}"
    program = environment / "bin" / "pipehandler"
    with psycopg.connect(setting.server.conninfo(), autocommit=True) as maintenance:
        maintenance.execute(f"CREATE DATABASE {name}")
        _output(program, "--conninfo", setting.server.conninfo(name), "migrate")
        if not maintenance.execute("SELECT 1 FROM pg_roles WHERE rolname = 'pipehandler'").fetchone():
            maintenance.execute("CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest")
    account.give(folder)
    configuration = folder / "pipehandler.toml"
    configuration.write_text(
        f'database.conninfo = "{setting.server.conninfo(name, user="pipehandler")}"\nstate.directory = "{folder}"\n'
        f'log = {{ syslog = false, file = "{folder}/log" }}\nserve = {{ socket = "{folder}/socket", workers = 1 }}\n'
    )
    (package,) = environment.glob("lib/python3*/site-packages/pipehandler")
    start = [str(environment / "bin" / "python"), "-I", "-S", str(package / "__main__.py"), "deliver"]
    given = [f"--config={configuration}", "--sender=sender@example.org", "--", "user@example.com"]
    service = subprocess.Popen(
        account.command([str(program), "--config", str(configuration), "serve"]),
        env=ENVIRONMENT,
        cwd="/",
        stdout=subprocess.DEVNULL,  # a line when it is ready
    )
    try:
        wait_until((folder / "socket").exists, f"the start of the service of {program}")
        children = Path(f"/proc/{service.pid}/task/{service.pid}/children")
        wait_until(children.read_text, "its worker")
        (worker,) = map(int, children.read_text().split())
        yield Version(
            [*start, f"--socket={folder}/none", *given],
            [*start, f"--socket={folder}/socket", *given],
            (service.pid, worker),
        )
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)


def _output(program: Path, *arguments: str) -> str:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
