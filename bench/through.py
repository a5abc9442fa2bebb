"""Through a real Postfix: the same mail delivered in six ways, as fast as possible.

    bench/run through [--messages 2000] [--rounds 2]

The floor is a pipe to `cat >/dev/null`; then the usual script; then pipehandler, first cold, then with resident
workers, to which the Python entrypoint, the hand-over client or lmtp(8) passes the mail; then through a
Maildir, until its new/ is empty. One Postfix has a transport for each; smtp-source sends the same messages to all, but fewer copies to the slow
ones.
"""

import pwd
import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from cost import Memory
from harness import account
from harness.database import Database
from harness.maildir import Mailbox
from harness.mailhost import DOMAIN, MailHost
from harness.service import wait_until
from mail import keep, mix, newsletter
from one import USUAL_TABLE, client_words, percentile, usual_script
from posting import DISCARDED, Attempt, Log, send
from report import Aim, Report, Table
from setting import Setting, Spent, Watch

SMALL = {"messages": 2, "rounds": 1, "files": 2}
FLOOR, USUAL, COLD, RESIDENT = "pipe to cat >/dev/null", "usual script", "pipehandler, cold", "pipehandler, resident"
CLIENT = "pipehandler, client"
LMTP = "pipehandler, LMTP"
MAILDIR = "pipehandler, Maildir"
WAYS = (FLOOR, USUAL, COLD, RESIDENT, CLIENT, LMTP, MAILDIR)
_DOMAINS = {
    FLOOR: "floor.example",
    USUAL: "usual.example",
    CLIENT: "client.example",
    LMTP: "lmtp.example",
    MAILDIR: "maildir.example",
}
_SLOWER = {USUAL: 20, COLD: 10}  # so many times fewer messages

_TRANSPORT = """
{name} unix - n n - 8 pipe
  user={user}
  null_sender=
  argv={command}
"""


class Run(NamedTuple):
    """One load on one transport. spent: from the first connection to the last delivery."""

    sent: int
    delivered: int
    spent: Spent
    memory: float
    attempts: list[Attempt]


def measure(setting: Setting, *, messages: int = 2000, rounds: int = 2, files: int = 100) -> Report:
    """Measure two loads: the mix of real mail, to which the aims refer, and newsletters of 12 KB."""
    what, mixed = mix(files)
    letters = [newsletter(number) for number in range(files)]
    loads = {"real mail": (what, mixed), "newsletters": (f"newsletters of {len(letters[0]):,} octets", letters)}
    copies, report = max(1, messages // files), Report()
    with Database.fresh(setting.server) as database, setting.mail_host(database) as host:
        database.execute(USUAL_TABLE)
        _add_transports(host, database, usual_script(setting.new_folder()))
        warm = keep(letters[:1], setting.new_folder())
        for way in WAYS:  # afterwards the caches hold what the first delivery of each has to load
            _run(setting, host, database, way, warm, 1, "warm")
        for name, (note, mail) in loads.items():
            paths = keep(mail, setting.new_folder())
            runs: dict[str, list[Run]] = {way: [] for way in WAYS}
            for number in range(rounds):
                for way, found in runs.items():
                    fewer = max(1, copies // _SLOWER.get(way, 1))
                    found.append(_run(setting, host, database, way, paths, fewer, f"{name[0]}{number}"))
            report.tables.append(_table(f"Through Postfix: {name}", note, runs))
            resident = _speed(runs[RESIDENT])
            report.aims += [
                Aim(f"resident through Postfix, of the floor ({name})", resident / _speed(runs[FLOOR]), 0.30, True),
                Aim(
                    f"resident through Postfix, times the usual script ({name})",
                    resident / _speed(runs[USUAL]),
                    20,
                    True,
                ),
                Aim(
                    f"CPU with the client, of that with Python ({name})",
                    _cpu(runs[CLIENT])[0] / _cpu(runs[RESIDENT])[0],
                    0.55,
                ),
                Aim(
                    f"CPU of Postfix and the client, of the floor ({name})",
                    _cpu(runs[CLIENT])[1] / _cpu(runs[FLOOR])[0],
                    1,
                ),
                Aim(f"LMTP, CPU of the floor ({name})", _cpu(runs[LMTP])[0] / _cpu(runs[FLOOR])[0], 1.5),
                Aim(f"Maildir, CPU of the floor ({name})", _cpu(runs[MAILDIR])[0] / _cpu(runs[FLOOR])[0], 1.7),
            ]
    return report


def _add_transports(host: MailHost, database: Database, usual: Path) -> None:
    commands = {"floor": "/bin/sh -c {cat >/dev/null}", "usual": f"{sys.executable} {usual} {{{database.admin}}}"}
    for name, command in commands.items():
        host.add("master.cf", _TRANSPORT.format(name=name, user=account.NAME, command=command))
    host.handler.before = client_words()
    host.add("master.cf", re.sub("(?m)^pipehandler ", "client ", host.lines("master.cf")))
    host.handler.before = []
    host.add("master.cf", "virtual unix - n n - 8 virtual\n")
    routes = {domain: f"{domain.partition('.')[0]}:" for domain in _DOMAINS.values()}
    routes[_DOMAINS[LMTP]] = f"pipehandler-lmtp:unix:{host.handler.folder}/lmtp"
    routes[_DOMAINS[MAILDIR]] = "virtual:"
    owner = pwd.getpwnam(account.NAME)
    tables = ", ".join(f"{domain}={route}" for domain, route in routes.items())
    host.use_lmtp()
    host.postconf(
        "-e",
        "virtual_transport=pipehandler",
        f"virtual_mailbox_base={host.handler.folder}",
        "virtual_mailbox_maps=static:Maildir/",
        f"virtual_uid_maps=static:{owner.pw_uid}",
        f"virtual_gid_maps=static:{owner.pw_gid}",
        f"virtual_mailbox_domains={DOMAIN} {' '.join(_DOMAINS.values())}",
        f"transport_maps=inline:{{{tables}}}, {DISCARDED}",
        *(f"{name}_destination_recipient_limit=1" for name in (*commands, "client")),
    )
    host.reload()


def _run(
    setting: Setting, host: MailHost, database: Database, way: str, files: list[Path], copies: int, name: str
) -> Run:
    """Send everything and wait until Postfix has finished; raises if pipehandler did not store it all."""
    domain, sent, name = _DOMAINS.get(way, DOMAIN), len(files) * copies, f"{name}way{WAYS.index(way)}"
    with _service(setting, host, way):
        log = Log(host, domain)
        with Memory(setting.groups) as memory:
            watch = setting.watch()
            send(host, files, copies, name, domain)
            log.wait(sent)
            if way == MAILDIR:
                wait_until(Mailbox(host.handler.folder / "Maildir").is_empty)
            spent = watch.read()
        log.close()
    if way in (COLD, RESIDENT, CLIENT, LMTP, MAILDIR):
        stored = database.value("SELECT count(*) FROM pipehandler.delivery WHERE recipient LIKE %s", f"%{name}x%")
        if stored != sent:
            raise RuntimeError(f"{stored} of {sent} were stored: {way}")
    return Run(sent, log.statuses["sent"], spent, memory.most, log.attempts)


@contextmanager
def _service(setting: Setting, host: MailHost, way: str) -> Iterator[None]:
    """What has to run for a way."""
    with ExitStack() as stack:
        if way in (RESIDENT, CLIENT, LMTP):
            stack.enter_context(setting.service(host.handler))
        if way == MAILDIR:
            stack.enter_context(setting.watcher(host.handler, Mailbox(host.handler.folder / "Maildir")))
        yield


def _speed(runs: list[Run]) -> float:
    return statistics.median(each.sent / each.spent.seconds for each in runs)


def _cpu(runs: list[Run]) -> list[float]:
    """CPU time in ms per message, of everything and of each group; medians of the rounds."""
    return [statistics.median(column) for column in zip(*(each.spent.each(each.sent) for each in runs), strict=True)]


def _table(title: str, what: str, runs: dict[str, list[Run]]) -> Table:
    rows: list[list[object]] = []
    for way, found in runs.items():
        times = [1000 * attempt.seconds for each in found for attempt in each.attempts]
        rows.append(
            [
                *(way, sum(each.sent for each in found), sum(each.delivered for each in found)),
                *(_speed(found), _speed(found) / _speed(runs[FLOOR]), *_cpu(found)),
                *(statistics.median(times), percentile(times, 99), max(each.memory for each in found) / 2**20),
            ]
        )
    head = ["way", "sent", "delivered", "messages/s", "of the floor", *Watch.HEAD, "wall ms", "99 %", "MB"]
    note = (
        f"{what}; smtp-source with 8 sessions, transports of 8 processes, 4 workers; medians of {len(runs[FLOOR])} rounds in turn."
        " CPU: per message, of all processes of the mail host and the database, those that have ended included (control groups);"
        " not that of smtp-source. Wall: how long the command ran while 8 compete for the cores, as Postfix logs it"
        " (delays=, two significant digits). Memory: the most of all these processes together, what is shared counted once."
        " What the usual script does not deliver, bounces."
    )
    return Table(title, head, rows, note)
