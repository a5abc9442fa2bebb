"""The README does what it says: its commands are run as they stand there, its queries too, and the demonstration."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.postgresql import PostgreSQL

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


# Our own copies of the folders that the commands change, in a namespace that goes with its last process. Without
# the port of SMTP, so that it runs beside another Postfix.
SANDBOX = """
set -eu
for folder in /etc /opt /var; do
    mkdir -p "$WORK/upper$folder" "$WORK/work$folder"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$WORK/upper$folder,workdir=$WORK/work$folder" $folder
done
mkdir -p /run/postgresql /run/pipehandler
mount --bind "$SOCKETS" /run/postgresql
mount -t tmpfs tmpfs /run/pipehandler
postconf -MX smtp/inet
postconf -e maillog_file=/var/log/postfix.log
export PATH=/opt/pipehandler/bin:$WORK/bin:$PATH
"""

# systemd cannot run in there: this does with the unit that was installed what systemctl would do.
SYSTEMCTL = """#!/bin/bash -eu
value() { sed -n "s/^$1=//p" "/etc/systemd/system/${unit:-pipehandler.service}"; }
case "$*" in
    *expire.timer)
        unit=pipehandler-expire.service
        $(value ExecStart) ;;
    enable*)
        chown "$(value User)" /run/pipehandler
        setpriv --reuid "$(value User)" --clear-groups $(value ExecStart) &
        echo $! > "$WORK/pid"
        until [ -S /run/pipehandler/socket ]; do sleep 0.1; done ;;
    disable*)
        kill "$(cat "$WORK/pid")"
        while [ -S /run/pipehandler/socket ]; do sleep 0.1; done ;;
esac
"""
SECOND = "printf 'Subject: second\\n\\nHello.\\n' | sendmail -f me@example.org user@example.com"
QUIET = "for _ in $(seq 100); do postqueue -j | grep -q . || break; sleep 0.2; done"


@pytest.mark.usefixtures("_postfix")
def test_set_up_and_commands() -> None:
    """Every command of the README, in its order, on a host of its own: mail arrives and is shown."""
    commands = [block for block in blocks("sh") if "script/demo" not in block]
    with account.folder("pipehandler-readme-") as folder:
        (folder / "overlay" / "bin").mkdir(parents=True)
        systemctl = folder / "overlay" / "bin" / "systemctl"
        systemctl.write_text(SYSTEMCTL)
        systemctl.chmod(0o755)
        server = PostgreSQL(folder / "pg", 16, {"listen_addresses": "", "port": "5432"})
        server.port = 5432
        server.start()
        try:
            script = [SANDBOX, f"cd {REPOSITORY}", *commands[:-1], QUIET, commands[-1]]
            sent = next(index for index, block in enumerate(script) if "sendmail" in block)
            script.insert(sent + 1, QUIET)
            asked = next(index for index, block in enumerate(script) if "--status" in block)
            script[asked:asked] = [SECOND, QUIET]
            done = subprocess.run(
                [
                    "unshare",
                    "--mount",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "--mount-proc",
                    "bash",
                    "-eu",
                    "-c",
                    "\n".join(script),
                ],
                env={**os.environ, "WORK": str(folder / "overlay"), "SOCKETS": str(server.folder)},
                capture_output=True,
                text=True,
                timeout=300,
            )
        finally:
            server.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    listed = [line for line in done.stdout.splitlines() if "user@example.com" in line and "first" in line]
    assert listed, done.stdout
    assert "Hello." in done.stdout
    assert ["delivered", "1"] in [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("query", blocks("sql"), ids=lambda query: query.partition("\n")[0].strip("- ."))
def test_queries(database: Database, query: str, two_messages: None) -> None:
    """Every query of the README runs for the role of a reader."""
    with psycopg.connect(database.server.conninfo(database.name, user="reader")) as reader:
        rows = reader.execute(query).fetchall()
    assert rows or "failed" in query


@pytest.mark.parametrize("program", blocks("python"))
def test_programs(database: Database, program: str, two_messages: None) -> None:
    """Every program of the README shows what is there, and waits for more."""
    conninfo = database.server.conninfo(database.name, user="reader")
    program = program.replace("host=/run/postgresql dbname=mail", conninfo)
    assert conninfo in program
    with subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert [running.stdout.readline(), running.stdout.readline()] == ["hello\n", "None\n"]
        assert running.poll() is None
        running.kill()


@pytest.fixture
def two_messages(database: Database, handler: Handler) -> None:
    """Mail that the README's queries find."""
    both = (
        b"Received: by mx.example.net; Mon, 02 Mar 2026 07:30:02 +0900\nFrom: Ben <news@Sender.Example>\nSubject: hello\n"
        b"Message-ID: <both@sender.example>\nList-Id: <garden.sender.example>\n"
        b"Content-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n<img src='cid:a@b'>\n"
        b"--b\nContent-Type: image/gif\nContent-ID: <a@b>\n\nGIF89a\n--b--\nepilogue\n"
    )
    answer = (
        b"From: user@example.com\nMessage-ID: <2@example.com>\nIn-Reply-To: <both@sender.example>\nDate: never\n\nok\n"
    )
    for message in (both, answer):
        assert handler.deliver(message, "user@example.com").status == 0


def shape(line: str) -> str:
    """A line without what differs from run to run: ids, times, ports, process numbers."""
    return re.sub(r"[0-9a-f]{64}|[0-9a-f]{8}-[-0-9a-f]{27}|4[0-9A-Za-z]{14}|[0-9]+(\.[0-9]+)?", "*", line).strip()


def test_demo_without_root(folder: Path) -> None:
    """Whoever is not root sees the same messages delivered through the same entrypoint from stdin."""
    # The checkout may be closed to others.
    for name in ("script", "tests/harness"):
        shutil.copytree(REPOSITORY / name, folder / name)
    command = [sys.executable, str(folder / "script" / "demo.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", **account.identity())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "root is needed" in done.stdout or not account.IS_ROOT
    assert "DIFFERENT" not in done.stdout


@pytest.mark.usefixtures("_postfix")
def test_demo() -> None:
    """The demonstration ends well, and prints what the README shows of it."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "script" / "demo.py")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERENT" not in done.stdout
    printed = {shape(line) for line in done.stdout.splitlines()}
    shown = README.partition("<!-- demo -->")[2].partition("<!-- /demo -->")[0].strip().splitlines()[1:-1]
    assert [line for line in shown if shape(line) not in printed] == []


@pytest.mark.usefixtures("_postfix")
def test_demo_keep() -> None:
    """With --keep it goes on until Ctrl-C, says how to look at it, and leaves no process and no folder behind.

    Every write of the demonstration is made to last, so that Ctrl-C finds it where it has just promised to obey it.
    """
    lasting = ["strace", "-D", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:delay_exit=50000"]
    command = [*lasting, sys.executable, str(REPOSITORY / "script" / "demo.py"), "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        printed = ""
        while "Ctrl-C stops everything" not in printed:
            line = running.stdout.readline()
            assert line, printed
            printed += line
        running.send_signal(signal.SIGINT)
        printed += running.stdout.read()
    assert running.returncode == 0, printed
    (folder,) = set(re.findall(r"/\S+/pipehandler-demo-\w+", printed))
    assert "curl smtp://127.0.0.1:" in printed
    assert not Path(folder).exists()
    assert subprocess.run(["pgrep", "-f", folder], capture_output=True, text=True).stdout == ""
