"""The hand-over client: how it is built, installed, started, and what a damaged file of it does.

That it delivers as the Python entrypoint does is tested with that, in tests/contract and in test_serve.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import account
from harness.answering import serving
from harness.compiled import CLIENT, REPOSITORY, SANITIZED, compiled
from harness.handler import ENVIRONMENT, Handler
from harness.missing import missing

from pipehandler.cli import cli
from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.postfix import client
from pipehandler.postfix.templates import CODE, PACKAGES

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\nSubject: one\n\nbody\n"
PYTHON = sys.executable


@pytest.fixture(scope="module")
def shipped() -> str:
    """The client of this environment."""
    if not client.shipped():
        missing("the hand-over client, for which this environment needed a C compiler,")
    return client.shipped()


def cold_command(code: str, *arguments: str) -> list[str]:
    """The words of the Python entrypoint, with other code."""
    return [PYTHON, "-I", "-S", "-X", "utf8", "-c", code, PACKAGES, "deliver", *arguments, "--", "user@example.com"]


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a client as pipe(8) would, and wait for its end."""
    return subprocess.run(command, input="", capture_output=True, text=True, env=ENVIRONMENT, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


# Source and build.


def test_source() -> None:
    """It can be read in a few minutes."""
    assert len(CLIENT.read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("compiler", ["cc", "gcc", "musl-gcc"])
def test_needs_libc_alone(tmp_path: Path, compiler: str) -> None:
    """It compiles without a warning, uses no other library than libc, and allocates nothing."""
    program = compiled(CLIENT, tmp_path / "client", "-O2", compiler=compiler)
    headers = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", headers)) <= {"libc.so.6", "libc.so"}
    symbols = subprocess.run(["nm", "-u", program], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"\b(malloc|calloc|realloc|free|mmap|strdup)\b", symbols)


def built(folder: Path, **environment: str) -> tuple[Path, str]:
    """The wheel of this checkout, and what the build printed."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, done.stdout + done.stderr


@pytest.mark.parametrize("compiler", ["none", "false", "true"], ids=["missing", "fails", "makes nothing"])
def test_build_without_a_compiler(tmp_path: Path, compiler: str) -> None:
    """Without a compiler that works the wheel is pure Python, for every processor, and a line says so."""
    wheel, printed = built(tmp_path, CC=str(tmp_path / compiler) if compiler == "none" else f"/bin/{compiler}")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "this wheel has no hand-over client" in printed
    assert (compiler == "none") or f"no hand-over client with /bin/{compiler}: " in printed
    listed = subprocess.run([PYTHON, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True).stdout
    assert "pipehandler-client" not in listed
    assert "pipehandler/handover.c" in listed


def test_static_client_runs_everywhere(tmp_path: Path) -> None:
    """A wheel with a client that needs no libc names every Linux of its processor; RECORD has its hash."""
    if shutil.which("musl-gcc") is None:
        missing("musl-gcc")
    wheel, _ = built(tmp_path)
    machine = os.uname().machine
    assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}.whl")
    subprocess.run([PYTHON, "-m", "zipfile", "-e", wheel, tmp_path], check=True)
    (record,) = tmp_path.glob("*.dist-info/RECORD")
    assert re.search(r"^pipehandler/share/bin/pipehandler-client,sha256=\S+,\d+$", record.read_text(), re.MULTILINE)
    assert (tmp_path / "pipehandler/share/bin/pipehandler-client").stat().st_size < 100_000


def test_sanitized(handler: Handler, tmp_path: Path) -> None:
    """With the sanitizers for addresses and undefined behaviour it does the same: refused, handed over, cold."""
    program = compiled(CLIENT, handler.folder / "client", *SANITIZED)
    started = [str(program), f"--packages={PACKAGES}"]
    assert (run([str(program)]).returncode, run([str(program)]).stderr) == (75, "")
    with serving(handler.socket, b"wait 5", b"go 5", b"end 0 2.0.0 stored x"):
        done = run([*started, *cold_command(CODE, f"--socket={handler.socket}")])
    assert (done.returncode, done.stdout, done.stderr) == (0, "2.0.0 stored x\n", "")
    handler.socket.unlink()
    handler.before = started
    assert handler.deliver(MESSAGE).status == 0
    assert handler.deliver(MESSAGE, *(f"{'x' * 60}{number}@example.com" for number in range(3_000))).status == 0


# The hand-over.


def test_the_same_packet(handler: Handler, shipped: str) -> None:
    """Its first packet is that of the Python entrypoint, octet for octet, but for the process and the time."""
    arguments = (f"--socket={handler.socket}", "--sender=", f"--queue-id={os.fsdecode(bytes(range(1, 256)))}", "-x")
    with serving(handler.socket, b"end 75 4.4.5 mail system congested") as packets:
        for before in ([], client.start(shipped)):
            done = run([*before, *cold_command(CODE, *arguments)])
            assert (done.returncode, done.stdout) == (75, "4.4.5 mail system congested\n")
    python, c = (packet.split(b"\0") for packet in packets)
    assert python[:3] == c[:3]
    assert python[4:] == c[4:]
    assert 0 <= float(c[3]) - float(python[3]) < 60


def test_what_python_receives(handler: Handler, shipped: str) -> None:
    """The Python that it becomes has the same words, and knows when the delivery began."""
    before = time.monotonic()
    code = "import json,sys;print(json.dumps([sys._xoptions,sys.flags.isolated,sys.argv]))"
    done = run([*client.start(shipped), *cold_command(code, f"--socket={handler.socket}", "--sender=ü")])
    options, isolated, argv = json.loads(done.stdout)
    assert before <= float(options.pop("pipehandler_started")) <= time.monotonic()
    assert (options, isolated) == ({"utf8": True}, 1)
    assert argv[1:] == [PACKAGES, "deliver", f"--socket={handler.socket}", "--sender=ü", "--", "user@example.com"]


def test_the_deadline_goes_on(handler: Handler) -> None:
    """The time that the client waited counts: a delivery that began an hour ago is deferred, and asks no service."""
    command = handler.command()
    command.insert(1, f"-Xpipehandler_started={time.monotonic() - 3600}")
    with serving(handler.socket, b"end 75 4.4.5 mail system congested") as packets:
        done = handler.run(command, MESSAGE)
    assert (done.status, packets) == (75, [])
    assert done.output.startswith("4.3.0 ")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--packages="],
        ["--packages=/x", PYTHON, "/x/pipehandler/__main__.py", "deliver", "--", "a"],
        [PYTHON, "-I", "-S", "-X", "utf8", "-c", "print()", "/x", "deliver", "--", "a"],
        ["--packages=/x", PYTHON, "-I", "-S", "-X", "utf8", "-c", "print()", "/x", "delivers"],
    ],
)
def test_only_the_guarded_form(shipped: str, words: list[str]) -> None:
    """Other words, such as those of version 0.1.0, start nothing: Python could end with 0 for an empty file."""
    done = run([*client.start(shipped)[:2], *words])
    assert (done.returncode, done.stdout) == (75, "4.3.5 mail system incorrectly configured\n")


def test_python_is_missing(shipped: str) -> None:
    """An interpreter that cannot be started defers."""
    done = run([*client.start(shipped), "/nonexistent", *cold_command(CODE)[1:]])
    assert (done.returncode, done.stdout) == (75, "4.3.0 internal fault\n")


# A damaged file.


def damages(whole: bytes, other: bytes) -> Iterator[bytes]:
    """A file that is truncated, or has a block of zeros or another file's after a power failure; and parts of two files."""
    for length in chain(range(0, 128, 8), range(128, len(whole), 509)):
        yield whole[:length]
    for start in range(0, len(whole), 512):
        yield whole[:start] + bytes(512) + whole[start + 512 :]
        yield whole[:start] + other[start:]
        yield other[:start] + whole[start:]
        yield whole[:start] + bytes(len(whole) - start)


def test_damaged(folder: Path, shipped: str) -> None:
    """However the file is damaged, status 0 comes from the answer of a worker alone. Started without the loader, an empty one
    is a success for sh, as pipe(8) starts it."""
    whole, file = Path(shipped).read_bytes(), folder / "client"
    options = ("-Os", "-static") if b"GLIBC_" not in whole else ("-Os", "-fPIE", "-pie")
    compiler = "musl-gcc" if "-static" in options else "cc"
    other = compiled(CLIENT, folder / "other", *options, compiler=compiler).read_bytes()
    words = [*client.start(str(file)), "/nonexistent", *cold_command(CODE, f"--socket={folder / 'socket'}")[1:]]
    ends = set()
    with serving(folder / "socket", b"go 0") as packets:
        for number, content in enumerate(damages(whole, other)):
            file.unlink(missing_ok=True)
            file.write_bytes(content)
            file.chmod(0o755)
            done = run(words)
            assert done.returncode != 0, (number, done)
            ends.add(done.returncode)
    assert {75, 127} <= ends
    assert packets
    file.write_bytes(b"")
    assert subprocess.run(["sh", str(file)]).returncode == 0


@pytest.mark.parametrize("call", ["openat", "read", "mmap", "fstat", "newfstatat", "execve", "close"])
def test_loader_fails(folder: Path, shipped: str, call: str) -> None:
    """Whatever fails while the loader reads the file, status 0 does not come from it: the message is delivered cold, or deferred."""
    if shutil.which("strace") is None:
        missing("strace")
    path = folder / "client"
    shutil.copy(shipped, path)
    words = [*client.start(str(path)), *cold_command("import posix;posix._exit(42)")]
    for error in ("EIO", "ENOMEM", "EACCES", "EAGAIN"):
        faults = ["-P", str(path), "-e", f"trace={call}", "-e", f"inject={call}:error={error}"]
        done = run(["strace", "-f", "-qq", "-o", str(folder / "trace"), *faults, *words])
        assert done.returncode in (42, 127), (error, done)
        assert done.returncode == 127 or "INJECTED" not in (folder / "trace").read_text() or call == "close"


# Installation.


def test_install(folder: Path, shipped: str) -> None:
    """The command copies it, names what comes next, and replaces an older one in one step."""
    path = folder / "lib" / "client"
    done = CliRunner().invoke(cli, ["client", str(path)])
    assert (done.exit_code, done.output) == (
        0,
        f"installed {path}\n`pipehandler postfix master.cf --client {path}` prints the lines that use it\n",
    )
    assert client.is_shipped(str(path))
    before = path.stat().st_ino
    assert CliRunner().invoke(cli, ["client", str(path)]).exit_code == 0
    assert path.stat().st_ino != before
    assert os.listdir(path.parent) == ["client"]
    assert client.usable(str(path)) == ""


def test_lines(folder: Path, shipped: str) -> None:
    """`postfix` prints lines with the client where it works, and says why not where it does not."""
    path = folder / "client"
    options = ["postfix", "master.cf", "--client"]
    python = CliRunner().invoke(cli, [*options, "none"])
    assert "\n  argv=/" in python.output
    assert "--packages=" not in python.output
    missing_one = CliRunner().invoke(cli, [*options, str(path)])
    assert missing_one.stdout == python.stdout
    assert "note: master.cf starts Python, because the hand-over client does not work: " in missing_one.stderr
    shutil.copy(shipped, path)
    used = CliRunner().invoke(cli, [*options, str(path)])
    assert (used.exit_code, used.stderr) == (0, "")
    assert f"\n  argv={' '.join(client.start(str(path)))}\n# That was the hand-over client" in used.stdout


@pytest.mark.parametrize("content", [b"", b"\x7fELF", None], ids=["empty", "truncated", "another processor"])
def test_does_not_work(folder: Path, shipped: str, content: bytes | None) -> None:
    """A file that cannot be used is found by the trial."""
    path = folder / "client"
    whole = Path(shipped).read_bytes()
    path.write_bytes(whole[:18] + b"\xf3\x00" + whole[20:] if content is None else content)  # e_machine: RISC-V
    assert "left with status 127" in client.usable(str(path))


def test_noexec(folder: Path, shipped: str) -> None:
    """On a file system without execution it is not installed, and nothing is left there."""
    script = (
        'mount -t tmpfs -o noexec none "$1" || exit 99; "$2" client "$1/client"; status=$?; ls -A "$1"; exit $status'
    )
    program = Path(sys.executable).with_name("pipehandler")
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(folder), str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 99 or "unshare failed" in done.stderr:
        missing("the right to mount")
    assert (done.returncode, done.stdout) == (EX_UNAVAILABLE, "")
    assert "left with status 127" in done.stderr


def test_without_a_client(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An installation that was made without a compiler says so, and how to get one."""
    monkeypatch.setattr(client, "shipped", lambda: "")
    done = CliRunner().invoke(cli, ["client", str(folder / "client")])
    assert done.exit_code == EX_UNAVAILABLE
    assert "no C compiler worked" in done.output
    assert "gcc musl-tools" in done.output
    assert list(folder.iterdir()) == []


def test_as_another_account(folder: Path, shipped: str) -> None:
    """The account of the transport can use what root installed, whatever root's umask."""
    program = Path(sys.executable).with_name("pipehandler")
    path = folder / "closed" / "client"
    subprocess.run(["sh", "-c", f"umask 077; exec {program} client {path}"], check=True, capture_output=True)
    done = run(account.command([*client.start(str(path)), *cold_command("import posix;posix._exit(7)")]))
    assert done.returncode == 7
