"""The conventions of the command line: short options, options anywhere, hints, JSON, width, pager, colour, and
SIGPIPE."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import account
from harness.console import Console
from harness.database import Database
from harness.handler import ENVIRONMENT, Handler
from harness.missing import missing
from harness.preloaded import PROGRAM
from harness.service import Service, configure, wait_until
from reference.commands import commands

from pipehandler.cli import cli
from pipehandler.cli.terminal import human_size, table, width

MESSAGE = b"From: a@example.org\nSubject: %d %s\n\nhello\n"


@pytest.fixture
def console(folder: Path, database: Database) -> Console:
    """Commands on one database."""
    return Console(folder, database)


def help_of(*words: str) -> str:
    """The output of `-h`."""
    done = CliRunner().invoke(cli, [*words, "-h"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", [command.name for command in commands()])
def test_help_everywhere(name: str) -> None:
    """-h prints the help of every command, and no sentence in a list of commands is truncated."""
    text = help_of(*name.split()[1:])
    assert text.startswith("Usage: ")
    assert "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_deliver(handler: Handler, option: str) -> None:
    """The help of `deliver` is not a delivery: it is printed, and leaves no record."""
    command = [PROGRAM, "deliver", option]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: pipehandler deliver ")
    assert not (handler.state / "journal.sqlite").exists()


def test_options_of_the_program_after_the_command(console: Console) -> None:
    """--config, -c and --conninfo work before and after a command; after -- every word is an argument."""
    config = str(console.config)
    for words in (["-c", config, "list"], ["list", "-c", config], ["list", f"--config={config}", "-n", "3"]):
        done = subprocess.run([PROGRAM, *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "nothing found\n"), done
    admin = console.database.admin
    done = subprocess.run(
        [PROGRAM, "quarantine", "list", "--conninfo", admin, "-c", config], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "the quarantine is empty\n")
    done = subprocess.run([PROGRAM, "-c", config, "show", "--", "--config"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "--config" in done.stderr
    assert "No such option" not in done.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["lst"], "list"), (["sttus"], "status"), (["address", "lisst"], "list"), (["quarantine", "expart"], "export")],
)
def test_did_you_mean(words: list[str], meant: str) -> None:
    """An unknown command is refused with a suggestion."""
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert re.search(rf"No such command '{words[-1]}'\. Did you mean .*\b{meant}\b.*\?", done.output)


def test_every_command_can_print_json() -> None:
    """Each command that prints a result has --json; those that print bytes, SQL, files or nothing have none."""
    without = {"deliver", "postfix", "raw", "attachment", "metrics", "setup", "client", "watch", "web", "web export"}
    groups = {"pipehandler", "pipehandler address", "pipehandler quarantine"}
    lacking = {command.name for command in commands() if not any("--json" in names for names, _ in command.options)}
    assert lacking - groups == {f"pipehandler {name}" for name in without}


def test_quiet_everywhere() -> None:
    """Each command that does or checks something has -q; those that are called for what they print have none."""
    printing = {"list", "show", "raw", "attachment", "follow", "metrics", "postfix", "address list", "quarantine list"}
    printing |= {"quarantine show", "address new", "address add", "address extend", "address expire"}
    printing |= {f"web {name}" for name in ("key", "keys", "revoke", "close", "reopen", "export")}
    quiet = {command.name for command in commands() if any("--quiet" in names for names, _ in command.options)}
    groups = {"", " address", " quarantine", " deliver", " serve", " client", " watch", " web"}
    assert {f"pipehandler {name}" for name in printing} | {f"pipehandler{name}" for name in groups} == {
        command.name for command in commands()
    } - quiet


def test_quiet(console: Console, handler: Handler) -> None:
    """With -q a command that succeeds prints nothing; what needs attention is printed all the same."""
    database = console.database
    owner = ["--conninfo", database.admin]
    database.execute("ALTER TABLE pipehandler.message ADD CONSTRAINT odd CHECK (subject IS NULL) NOT VALID")
    for number in range(3):
        assert handler.deliver(MESSAGE % (number, b"x")).status == 0
    database.execute("SELECT pipehandler.lease_address('a@example.com')")
    failing = console.run("reparse", "-q").text
    assert failing.startswith("3 tried, 0 changed, 3 ")
    database.execute("ALTER TABLE pipehandler.message DROP CONSTRAINT odd")
    export = ["quarantine", "export", "--all", "--to", str(console.folder / "out"), "-q"]
    dropped, removed, _ = (row.message for row in database.rows("SELECT message::text FROM pipehandler.delivery"))
    for words in (
        [*export],
        [*export],
        ["quarantine", "drop", "-yq", dropped],
        ["reparse", "-q"],
        ["expire", "-q"],
        ["remove", "-yq", removed],
        ["address", "remove", "-yq", "a@example.com"],
        ["migrate", "-q", *owner],
        ["restored", "-q", *owner],
    ):
        done = console.run(*words)
        assert (done.status, done.text, done.errors) == (0, "", ""), words
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1


def test_json_of_what_was_done(console: Console, handler: Handler) -> None:
    """migrate, expire and quarantine export report in JSON what they did."""
    owner = ["--conninfo", console.database.admin]
    assert json.loads(console.run("migrate", "--json", *owner).text) == {"applied": []}
    counts = json.loads(console.run("expire", "--json").text)
    assert counts == dict.fromkeys(counts, 0) | {"dry_run": False}
    assert {"deliveries", "messages", "leases"} < set(counts)
    console.database.execute("ALTER TABLE pipehandler.message ADD CONSTRAINT odd CHECK (subject IS NULL) NOT VALID")
    assert handler.deliver(MESSAGE % (1, b"x")).status == 0
    (exported,) = console.run(
        "quarantine", "export", "--all", "--to", console.folder / "out", "--json"
    ).text.splitlines()
    shown = json.loads(exported)
    assert shown["written"] is True
    assert Path(shown["path"]).read_bytes().endswith(b"hello\n")
    assert json.loads(console.run("expire", "--json", "--dry-run").text)["dry_run"] is True


def test_the_reader_leaves(console: Console, handler: Handler) -> None:
    """`list | true` ends as other programs do: silently, by SIGPIPE."""
    for number in range(3):
        assert handler.deliver(MESSAGE % (number, b"x")).status == 0
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(console.command("list"), stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_output_to_a_file(console: Console, handler: Handler) -> None:
    """raw and attachment write to a file that appears once it is complete, and to stdout without one."""
    message = MESSAGE % (1, b"x")
    assert handler.deliver(message).status == 0
    file = console.folder / "one.eml"
    assert console.run("raw", "1", "-o", file).output == b""
    assert file.read_bytes() == console.run("raw", "1").output == message
    assert console.run("raw", "999", "--output", console.folder / "none.eml").status == 66
    assert not (console.folder / "none.eml").exists()


def on_a_terminal(console: Console, columns: int, *arguments: str, **environment: str) -> str:
    """The output of a command on a terminal of so many columns."""
    command = f"stty cols {columns} rows 50; {shlex.join(console.command(*arguments))}"
    env = {**ENVIRONMENT, "TERM": "xterm", "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], capture_output=True, stdin=subprocess.DEVNULL, env=env, timeout=60
    )
    assert done.returncode == 0, done
    return done.stdout.decode()


def test_width_of_the_terminal(console: Console, handler: Handler) -> None:
    """The list fits the terminal, however narrow; in a pipe it is not shortened."""
    assert (
        handler.deliver(MESSAGE % (1, b"a subject that is rather long, so that it is cut in the middle of it")).status
        == 0
    )
    for columns in (150, 110):
        shown = on_a_terminal(console, columns, "list").splitlines()
        assert len(shown) == 2
        assert all(width(line) <= columns for line in shown), shown
    assert "a subject that is rather long, so " in console.run("list").text


def test_pager(console: Console, handler: Handler) -> None:
    """show uses the user's pager on a terminal, and none elsewhere."""
    assert handler.deliver(MESSAGE % (1, b"x")).status == 0
    assert on_a_terminal(console, 100, "show", "1", PAGER="sed s/^/paged:/").startswith("paged:Message:")
    assert console.run("show", "1").text.startswith("Message:")


def test_colour(handler: Handler) -> None:
    """The first line of status has a colour on a terminal, unless NO_COLOR is set; nothing has one elsewhere."""
    words = [PROGRAM, "-c", str(handler.config), "status", "--config-directory", "/nonexistent"]
    handler.config.write_text("[nothing]\n")
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        env = {**ENVIRONMENT, "TERM": "xterm", "PATH": os.environ["PATH"], **environment}
        command = ["script", "-qec", shlex.join(words), "/dev/null"]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=env, timeout=60)
        assert (b"\x1b[31mMail is NOT flowing" in done.stdout) == coloured
        assert b"Mail is NOT flowing" in done.stdout
    assert b"\x1b" not in subprocess.run(words, capture_output=True).stdout


def test_sizes() -> None:
    """Sizes have a readable unit, and three or four digits."""
    sizes = {
        0: "0 B",
        831: "831 B",
        999: "999 B",
        1_000: "1.0 kB",
        52_428_800: "52.4 MB",
        999_960: "1.0 MB",
        7 * 10**9: "7.0 GB",
    }
    assert {octets: human_size(octets) for octets in sizes} == sizes


def test_a_table_that_has_to_fit() -> None:
    """Texts are shortened, the widest first, down to eight columns; numbers never are; the result is never wider than
    before."""
    rows = [[1234567, "x" * 40, "y" * 20, human_size(5_000)]]
    for columns in range(20, 100):
        lines = table(["N", "LONG", "SHORT", "SIZE"], rows, columns=columns)
        assert all(width(line) <= max(columns, 7 + 8 + 8 + 6 + 6) for line in lines)
        assert lines[1].startswith("1234567  x")
        assert lines[1].endswith("5.0 kB")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    """The completion that docs/cli.md installs is understood by its shell; bash completes a command with it."""
    environment = {**ENVIRONMENT, "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [PROGRAM], env={**environment, "_PIPEHANDLER_COMPLETE": f"{shell}_source"}, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "_PIPEHANDLER_COMPLETE" in done.stdout
    if shutil.which(shell) is None:
        missing(shell)
    file = tmp_path / "completion"
    file.write_text(done.stdout)
    subprocess.run([shell, "-n", file], check=True, env=environment)
    if shell == "bash":
        function = re.search(r"^(\w+)\(\) \{$", done.stdout, re.MULTILINE)
        assert function
        program = f'source {file}; COMP_WORDS=(pipehandler quar); COMP_CWORD=1; {function[1]} pipehandler; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", program], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "quarantine\n"


def test_domains() -> None:
    """postfix --domain is given once for each domain."""
    done = CliRunner().invoke(cli, ["postfix", "main.cf", "--domain", "a.example", "--domain", "b.example"])
    assert "\nvirtual_mailbox_domains = a.example, b.example\n" in done.stdout


def test_lines_of_the_log(handler: Handler) -> None:
    """Each line of log.file begins with the time (RFC 3339), the host and the process, and the file can be moved
    away."""
    assert handler.deliver(MESSAGE % (1, b"x")).status == 0
    pattern = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}Z {re.escape(os.uname().nodename)} pipehandler\[\d+\]: outcome=delivered .*"
    assert re.fullmatch(pattern, handler.log.read_text().rstrip("\n"))
    handler.log.rename(handler.folder / "log.1")
    assert handler.deliver(MESSAGE % (2, b"x")).status == 0
    assert len(handler.log.read_text().splitlines()) == 1


def test_log_to_stdout(handler: Handler) -> None:
    """With log.file = /dev/stdout the workers log to the stdout of the service; a cold delivery cannot, which is counted."""
    configure(handler)
    text = handler.config.read_text().replace(str(handler.log), "/dev/stdout")
    handler.config.write_text(text)
    out = handler.folder / "stdout"
    with out.open("wb") as stdout, Service(handler, stdout=stdout):
        assert handler.deliver(MESSAGE % (1, b"x")).status == 0
        wait_until(lambda: "outcome=delivered" in out.read_text(), "the line")
    assert handler.deliver(MESSAGE % (2, b"x")).output.startswith("2.0.0 stored ")
    done = subprocess.run([PROGRAM, "-c", handler.config, "status", "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)["log_lines_dropped"] == {"file": 1}


def test_rotation(handler: Handler, tmp_path: Path) -> None:
    """logrotate accepts the example, moves the log away, and creates a new one that the next delivery writes to."""
    if shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        missing("logrotate")
    assert handler.deliver(MESSAGE % (1, b"x")).status == 0
    user = ["--user", account.NAME]
    done = subprocess.run(
        [PROGRAM, "-c", handler.config, "postfix", "pipehandler.logrotate", *user], capture_output=True, text=True
    )
    assert f"\n{handler.log} {{\n" in done.stdout
    example = tmp_path / "example"
    example.write_text(done.stdout)
    command: list[str | Path] = ["/usr/sbin/logrotate", "--force", "--state", tmp_path / "state", example]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert handler.deliver(MESSAGE % (2, b"x")).status == 0
    assert [len(handler.log.with_name(name).read_text().splitlines()) for name in ("log", "log.1")] == [1, 1]
