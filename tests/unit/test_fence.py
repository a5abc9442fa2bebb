"""Before the fence: the encoding of argv."""

import errno
import os
import subprocess
import sys

import pytest

from pipehandler import cli, fence

WITHOUT_UTF_8 = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def use_utf8(program: str, **environment: str) -> str:
    """The output of a program that calls _use_utf8 and then reports the encoding of its argv."""
    text = f"import sys\nfrom pipehandler import fence\n{program}\nfence._use_utf8()\nprint(sys.getfilesystemencoding(), sys.argv[1])"
    command = [sys.executable, "-P", "-c", text, "é"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def test_started_again() -> None:
    """If the locale has another encoding, the program is started again with UTF-8 and the same octets."""
    assert use_utf8("") == "utf-8 é\n"
    assert use_utf8("", **WITHOUT_UTF_8) == "utf-8 é\n"


@pytest.mark.parametrize(
    "broken",
    [
        "sys.executable = '/nonexistent'",
        "def fail(*_): raise MemoryError\nfence.posix.execv = fail",
        "def fail(*_): raise MemoryError\nfence.open = fail",
        "fence.open = lambda *_: open('/nonexistent')",
    ],
)
def test_not_started_again(broken: str) -> None:
    """If that fails it continues unchanged: another status would bounce the message."""
    assert use_utf8(broken, **WITHOUT_UTF_8).startswith("ascii ")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["deliver", "--sender=a"], True),
        (["serve"], True),
        (["--config", "/c", "serve"], True),
        (["status"], False),
        (["show", "deliver"], False),
        ([], False),
    ],
)
def test_which_commands(monkeypatch: pytest.MonkeyPatch, words: list[str], wanted: bool) -> None:
    """Deliveries and the service compare octets of argv; other commands keep the encoding of their terminal."""
    called: list[str] = []
    monkeypatch.setattr(fence, "_use_utf8", lambda: called.append("utf8"))
    monkeypatch.setattr(fence, "deliver", lambda argv: called.append(f"deliver {argv}"))
    monkeypatch.setattr(cli, "cli", lambda prog_name: called.append(prog_name))
    monkeypatch.setattr(sys, "argv", ["pipehandler", *words])
    fence.main()
    assert ("utf8" in called) == wanted
    assert (f"deliver {words[1:]}" in called) == (words[:1] == ["deliver"])


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (MemoryError(), (71, "4.3.0 mail system out of resources")),
        (SystemError("error return without exception set"), (71, "4.3.0 mail system out of resources")),
        (SystemError("another"), (75, "4.3.0 internal fault")),
        *((OSError(number, "x"), (71, "4.3.0 mail system out of resources"))
          for number in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
        (OSError(errno.ENOENT, "x"), (75, "4.3.0 internal fault")),
        (ModuleNotFoundError("x"), (75, "4.3.5 mail system incorrectly configured")),
        (ImportError("x"), (75, "4.3.0 internal fault")),
        (SystemExit(0), (75, "4.3.0 internal fault")),
        (KeyboardInterrupt(), (75, "4.3.0 internal fault")),
    ],
    ids=repr,
)  # fmt: skip
def test_meaning(error: BaseException, meaning: tuple[int, str]) -> None:
    """What ends a delivery outside of `run` is temporary, and what the host lacks is told from a fault."""
    assert fence._meaning(error) == meaning


@pytest.mark.parametrize("arguments", [["-h"], ["--help"]])
def test_call_for_help(arguments: list[str]) -> None:
    """A person gets the help; pipe(8), which writes into a pipe, never gets its status 0."""
    program = "import sys\nfrom pipehandler import fence\nprint(fence._is_call_for_help(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", program]

    def answer(words: list[str], **stdin: int) -> str:
        return subprocess.run([*command, *words], capture_output=True, text=True, check=True, **stdin).stdout  # type: ignore[call-overload, no-any-return]

    assert answer(arguments, stdin=subprocess.DEVNULL) == "True\n"
    with open("/proc/self/stat", "rb") as file:
        assert answer(arguments, stdin=file.fileno()) == "True\n"
    read, write = os.pipe()
    os.close(write)
    assert answer(arguments, stdin=read) == "False\n"
    os.close(read)
    assert answer([*arguments, "a@x"], stdin=subprocess.DEVNULL) == "False\n"
    assert answer([], stdin=subprocess.DEVNULL) == "False\n"


def test_call_for_help_without_stdin() -> None:
    """A closed descriptor is no person."""
    program = "import os\nos.close(0)\nfrom pipehandler import fence\nprint(fence._is_call_for_help(['-h']))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
