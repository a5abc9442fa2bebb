"""The log line: one line of ASCII for each delivery, whatever the values are."""

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipehandler.record.log import line, write
from pipehandler.settings.config import Log

HOSTILE = [
    'x" outcome=delivered status=0 y="',
    "a\nb",
    "a\r\nb\x0b\x0c\x1c\x85\u2028",
    "tab\there",
    "\x1b[31mred",
    "\\",
    '\\"',
    "Grüße 😀",
    "\x00",
    "\udcff",
    "",
    " ",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_one_line_of_ascii(value: str) -> None:
    """No value breaks the line, leaves ASCII or reaches a terminal as a control character."""
    text = line("delivered", reason=value)
    assert text.isascii()
    assert text.isprintable()


@given(st.text(max_size=100))
def test_no_value_makes_another_key(value: str) -> None:
    """However a value is chosen, a parser that handles quotes sees the same keys."""
    words = shlex.split(line("delivered", reason=value, status=75))
    assert [word.partition("=")[0] for word in words] == ["outcome", "reason", "status"]
    assert words[2] == "status=75"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100))
def test_printable_ascii_is_kept(value: str) -> None:
    """A value of printable ASCII reads back unchanged."""
    assert shlex.split(line("a", reason=value))[1] == f"reason={value}"


def test_plain_values_stand_without_quotes() -> None:
    """grep finds queue_id=4Xyz and status=0 literally; seconds have three digits, and unknown values are left out."""
    text = line("delivered", status=0, queue_id="4Xyz", seconds=0.12345, sqlstate=None)
    assert text == "outcome=delivered status=0 queue_id=4Xyz seconds=0.123"


def texts(file: Path) -> list[str]:
    """The lines of a log, each without the time, the host and the process before it."""
    return [line.partition("]: ")[2] for line in file.read_text().splitlines()]


def test_long_values_are_cut() -> None:
    """A value of a megabyte does not make a line of a megabyte."""
    text = line("fault", reason="x" * 1_000_000, status=75)
    assert len(text) < 500
    assert text.endswith("... status=75")


def test_file_is_appended(tmp_path: Path) -> None:
    """Each line is appended, whichever process wrote the lines before; other accounts may not read the file."""
    settings = Log(syslog=False, file=str(tmp_path / "log"))
    for text in ("one", "two"):
        write(text, settings, failed=False)
    assert texts(tmp_path / "log") == ["one", "two"]
    assert (tmp_path / "log").read_bytes().endswith(b" pipehandler[%d]: two\n" % os.getpid())
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    """Each line is one write: lines of several handlers are not mixed."""
    program = (
        "import sys; from pipehandler.settings.config import Log; from pipehandler.record.log import write\n"
        f"for _ in range(300): write(sys.argv[1] * 900, Log(False, {str(tmp_path / 'log')!r}), False)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, letter]) for letter in "abcd"]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert sorted(texts(tmp_path / "log")) == sorted(letter * 900 for letter in "abcd" for _ in range(300))


def test_refusing_destinations_are_returned(tmp_path: Path) -> None:
    """A destination that does not accept the line is returned, without an exception; no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path), "/dev/full", str(tmp_path / "fifo"), str(tmp_path / "none" / "log")):
        assert write("x", Log(syslog=False, file=path), failed=True) == ("file",)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("room", [0, 1, 10, 99])
def test_line_is_whole_or_not_there(tmp_path: Path, room: int) -> None:
    """If only a part of a line fits, nothing of it stays in the file, and the lines before it do."""
    file = tmp_path / "log"
    file.write_bytes(b"before\n")
    program = (
        "import resource, sys; from pipehandler.settings.config import Log; from pipehandler.record.log import write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "sys.exit(write('x' * 99, Log(False, sys.argv[1]), False) != ('file',))"
    )
    subprocess.run([sys.executable, "-c", program, file, str(7 + room)], check=True)
    assert file.read_bytes() == b"before\n"


def test_fifo_that_stands_still(tmp_path: Path) -> None:
    """A FIFO whose reader reads nothing accepts whole lines until it is full, and then none."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    settings = Log(syslog=False, file=str(tmp_path / "fifo"))
    taken = 0
    while write("x" * 5000, settings, failed=False) == ():
        taken += 1
    assert taken > 0
    octets = b""
    with suppress(BlockingIOError):
        while piece := os.read(reader, 65536):
            octets += piece
    os.close(reader)
    lines = octets.split(b"\n")
    assert lines.pop() == b""
    assert [line.partition(b"]: ")[2] for line in lines] == [b"x" * 3900] * taken
    assert max(map(len, lines)) < 4096


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("name", ["/dev/{}", "/proc/self/fd/{}"])
def test_streams(name: str, stream: str) -> None:
    """Each name means its own stream, unless that leads to /dev/null."""
    path = name.format({"stdout": 1, "stderr": 2}[stream] if "fd" in name else stream)
    program = (
        "import sys; from pipehandler.settings.config import Log; from pipehandler.record.log import write\n"
        "sys.exit(write('one', Log(False, sys.argv[1]), False) != ())"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    written = {"stdout": done.stdout, "stderr": done.stderr}
    assert written.pop(stream).endswith("]: one\n")
    assert not any(written.values())
    null = subprocess.DEVNULL
    assert subprocess.run([sys.executable, "-c", program, path], stdout=null, stderr=null).returncode == 1


def test_stream_that_stands_still() -> None:
    """A standard stream accepts whole lines until its pipe is full, and then none; /dev/null, which Postfix gives, accepts none."""
    program = (
        "import sys; from pipehandler.settings.config import Log; from pipehandler.record.log import write\n"
        "taken = [write('x' * 5000, Log(False, '/dev/stdout'), False) == () for _ in range(40)]\n"
        "print(sum(taken), taken == sorted(taken, reverse=True), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    reading, writing = os.pipe()
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=True)
    os.close(writing)
    with open(reading, "rb") as stream:
        lines = stream.read().splitlines()
    assert 0 < len(lines) < 40
    assert done.stderr == b"%d True\n" % len(lines)
    assert {line.partition(b"]: ")[2] for line in lines} == {b"x" * 3900}
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    assert done.stderr == b"0 True\n"
