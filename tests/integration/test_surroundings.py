"""What a delivery or the service inherits from the process that starts it: the locale, signals, namespaces, another
Python."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from harness import account
from harness.database import Database
from harness.handler import ENVIRONMENT, Handler, entrypoint, old_entrypoint
from harness.installation import Installation
from harness.missing import missing
from harness.preloaded import PROGRAM
from harness.service import Service, wait_until

from pipehandler.mail import outcome
from pipehandler.monitor.journal_totals import records
from pipehandler.monitor.status import failure_hint

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\n\nbody\n"
LOCALES = {
    "C": "", "C.UTF-8": "", "ja_JP.eucJP": "EUC-JP", "ko_KR.eucKR": "EUC-KR", "ja_JP.sjis": "SHIFT_JIS",
    "zh_CN.gb18030": "GB18030", "zh_TW.big5": "BIG5", "de_DE.iso88591": "ISO-8859-1", "ru_RU.koi8r": "KOI8-R",
    "zh_CN.gb2312": "GB2312",
}  # fmt: skip
SHORT_RUN = ("C", "C.UTF-8", "ja_JP.eucJP", "de_DE.iso88591", "ru_RU.koi8r")
"""Those of the short run: with an 8-bit charset, or as different from UTF-8 as any."""
ADDRESS = "用户é@example.com"


@pytest.fixture(scope="module")
def locales() -> Iterator[Path]:
    """A folder for locales."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales").is_dir():
        missing("localedef with the sources of locales")
    with account.folder("pipehandler-locales-") as folder:
        yield folder


def compiled(locales: Path, *names: str) -> str:
    """Compile locales, which takes seconds for each, unless it was done; returns LOCPATH."""
    for name in names:
        if LOCALES[name] and not (locales / name).exists():
            source = name.partition(".")[0]
            command = ["localedef", "-c", "--no-archive", "-i", source, "-f", LOCALES[name], str(locales / name)]
            subprocess.run(command, capture_output=True)
            assert (locales / name / "LC_CTYPE").exists(), name
    return str(locales)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT_RUN else pytest.mark.long) for name in LOCALES]
)
@pytest.mark.parametrize("start", [entrypoint, old_entrypoint])
def test_locale(handler: Handler, database: Database, locales: Path, name: str, start: Callable[[], list[str]]) -> None:
    """Arguments are octets, whatever the locale: an address in UTF-8 is stored unchanged, with new and old lines of
    master.cf."""
    command = [*start(), *handler.command(ADDRESS)[len(entrypoint()) :]]
    environment = {**ENVIRONMENT, "LOCPATH": compiled(locales, name), "LC_ALL": name}
    done = subprocess.run(account.command(command), input=MESSAGE, capture_output=True, env=environment, cwd="/")
    assert (done.returncode, done.stdout[:12]) == (0, b"2.0.0 stored"), done
    assert database.value("SELECT recipient FROM pipehandler.delivery") == ADDRESS


@pytest.mark.long
def test_locale_of_the_service(handler: Handler, database: Database, locales: Path) -> None:
    """The same through workers that were started under each locale, with new lines of master.cf under the same locale and with
    old ones under another."""
    for number, name in enumerate(LOCALES):
        command = [str(PROGRAM), "--config", str(handler.config), "serve"]
        environment = {**ENVIRONMENT, "LOCPATH": compiled(locales, *LOCALES), "LC_ALL": name}
        service = Service(handler)
        service._running = subprocess.Popen(account.command(command), env=environment, cwd="/")
        recipients = [f"{each}{number}{ADDRESS}" for each in ("same", "other")]
        try:
            wait_until(service.ready, "the start")
            starts = (entrypoint, name), (old_entrypoint, "ko_KR.eucKR" if name == "ja_JP.eucJP" else "ja_JP.eucJP")
            for recipient, (start, locale) in zip(recipients, starts, strict=True):
                words = handler.command(recipient, sender=f"sender{ADDRESS}")
                command = [*start(), *words[len(entrypoint()) :]]
                settings = {**environment, "LC_ALL": locale}
                done = subprocess.run(
                    account.command(command), input=MESSAGE, capture_output=True, env=settings, cwd="/"
                )
                assert (done.returncode, done.stdout[:12]) == (0, b"2.0.0 stored"), (name, locale, done)
        finally:
            end(service._running)
            assert not service.answers()
        rows = database.rows("SELECT recipient, sender FROM pipehandler.delivery ORDER BY id DESC LIMIT 2")
        assert [tuple(row) for row in rows] == [(each, f"sender{ADDRESS}") for each in reversed(recipients)]
    assert {record.mode for record in records(str(handler.state), 1000)} == {"resident"}


_INHERITED = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGALRM})
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_signals(handler: Handler) -> None:
    """With signals ignored or blocked by the parent process, a dead worker is replaced, and reload and stop work."""
    command = [sys.executable, "-c", _INHERITED, str(PROGRAM), "--config", str(handler.config), "serve"]
    running = subprocess.Popen(account.command(command), env=ENVIRONMENT, cwd="/")
    service = Service(handler)
    service._running = running
    try:
        wait_until(service.ready, "the start")
        os.kill(service.workers()[0], signal.SIGKILL)
        wait_until(lambda: service.status()["died"] == 1 and service.ready(), "another worker")
        before = service.workers()
        service.signal(signal.SIGHUP)
        wait_until(lambda: not set(before) & set(service.workers()) and service.ready(), "the reload")
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()


def end(running: "subprocess.Popen[bytes]") -> None:
    """End a service, and the namespace that it was started in, whose first process outlives unshare(1)."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    for pid in [*map(int, children), running.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.wait()


@pytest.mark.parametrize("size", [None, 0, 40])
def test_service_in_another_pid_namespace(handler: Handler, database: Database, size: int | None) -> None:
    """A service that cannot see the process that sends a message returns it: it is stored, cold, whatever its declared
    size."""
    if not account.IS_ROOT or os.system("unshare -pf --mount-proc true 2> /dev/null"):
        missing("root with PID namespaces")
    inside = ["setpriv", f"--reuid={account.NAME}", "--regid=nogroup", "--clear-groups", str(PROGRAM)]
    command = ["unshare", "-pf", "--mount-proc", *inside, "--config", str(handler.config), "serve"]
    running = subprocess.Popen(command, env=ENVIRONMENT, cwd="/")
    service = Service(handler)
    service._running = running
    try:
        wait_until(service.ready, "the start")
        declared = {} if size is None else {"size": len(MESSAGE) + MESSAGE.count(b"\n") + size}
        assert handler.deliver(MESSAGE, **declared).status == 0
        assert service.status()["other_namespace"] == 1
        asked = [str(PROGRAM), "--config", str(handler.config), "serve", "--status"]
        assert "PID namespace" in subprocess.run(asked, capture_output=True, text=True).stdout
    finally:
        end(running)
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1
    assert [record.mode for record in records(str(handler.state), 1000)] == ["cold"]


_HIDING = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid="$0" --regid=nogroup --clear-groups "$@"'


@pytest.fixture
def hiding() -> list[str]:
    """The command prefix under which the handler's account sees no process of another account."""
    if not account.IS_ROOT or os.system("unshare -m mount -t proc -o hidepid=2 proc /proc 2> /dev/null"):
        missing("root with mount namespaces")
    prefix = ["unshare", "-m", "sh", "-c", _HIDING, account.NAME]
    assert subprocess.run([*prefix, "cat", f"/proc/{os.getpid()}/stat"], capture_output=True).returncode
    return prefix


@pytest.mark.parametrize("mode", ["cold", "resident"])
def test_processes_are_hidden(handler: Handler, database: Database, hiding: list[str], mode: str) -> None:
    """If /proc hides pipe(8) from the handler (hidepid=2), a message is stored and not marked as truncated, without a
    size, with the right one, and with the size before a Milter."""
    right = len(MESSAGE) + MESSAGE.count(b"\n")
    service = Service(handler)
    if mode == "resident":
        command = [*hiding, str(PROGRAM), "--config", str(handler.config), "serve"]
        service._running = subprocess.Popen(command, env=ENVIRONMENT, cwd="/")
        wait_until(service.ready, "the start")
    try:
        for number, size in enumerate(("", right, right + 40)):
            command = [*hiding, *handler.command(f"{number}@example.com", size=size)]
            done = subprocess.run(command, input=MESSAGE, capture_output=True, env=ENVIRONMENT, cwd="/")
            assert (done.returncode, done.stdout[:13]) == (0, b"2.0.0 stored "), done
    finally:
        if service._running:
            end(service._running)
    assert {record.mode for record in records(str(handler.state), 1000)} == {mode}
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 3


def test_entrypoint_that_has_ended(handler: Handler, database: Database) -> None:
    """An entrypoint that waited for a service that stood still, delivered cold and ended is not one of another namespace."""
    with Service(handler) as service:
        os.kill(service.pid, signal.SIGSTOP)
        try:
            assert handler.deliver(MESSAGE).status == 0
        finally:
            os.kill(service.pid, signal.SIGCONT)
        shown = service.status()
        assert (shown["other_namespace"], shown["sent_back"]) == (0, 0)
    assert any(" mode=cold " in line for line in handler.log_lines())


def test_check_finds_the_other_namespace(handler: Handler, database: Database) -> None:
    """A service that has returned messages because it could not see the sending process is a finding; one that sees it
    is not."""
    if not account.IS_ROOT or os.system("unshare -pf --mount-proc true 2> /dev/null"):
        missing("root with PID namespaces")

    def found() -> list[str]:
        command = [str(PROGRAM), "--config", str(handler.config), "check", "--part", "handler", "--json"]
        done = subprocess.run(account.command(command), capture_output=True, env=ENVIRONMENT, cwd="/")
        return [finding["code"] for finding in json.loads(done.stdout)]

    service = Service(handler)
    inside = ["setpriv", f"--reuid={account.NAME}", "--regid=nogroup", "--clear-groups", str(PROGRAM)]
    for prefix, codes in (([], []), (["unshare", "-pf", "--mount-proc"], ["service-namespace"])):
        command = [*prefix, *inside, "--config", str(handler.config), "serve"]
        running = service._running = subprocess.Popen(command, env=ENVIRONMENT, cwd="/")
        try:
            wait_until(service.ready, "the start")
            assert handler.deliver(MESSAGE).status == 0
            assert [code for code in found() if code.startswith("service")] == codes
        finally:
            end(running)
            wait_until(lambda: not service.answers(), "the end")


@pytest.mark.unmeasured
def test_another_python(handler: Handler) -> None:
    """With the libraries of another Python, messages are deferred as misconfigured, and the hint names the fix."""
    with account.folder("pipehandler-python-") as folder:
        installation = Installation(folder)
        packages = installation.packages.parent.parent / "python3.10" / "site-packages"
        packages.parent.mkdir()
        packages.symlink_to(os.readlink(installation.packages))
        installation.packages.unlink()
        words = [
            str(packages) if word == str(installation.packages) else word
            for word in installation.command(handler.command())
        ]
        ended = handler.run(words, MESSAGE)
    assert ended.status == outcome.MISCONFIGURED.status
    assert ended.output == f"{outcome.MISCONFIGURED.line()}\n"
    (record,) = records(str(handler.state), 1000)
    assert record.outcome == "misconfigured"
    assert "create the environment again" in failure_hint(record)
