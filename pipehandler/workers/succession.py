"""Replace the running service by the program that is installed now, in the same process (execve(2)).

The new program is first tried in a child: `serve --trial` loads everything that it needs and the configuration, and
reports the digest of its code. Only then does the service become it. State is passed in one environment variable.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import Any, NamedTuple

from .. import handover
from ..runtime.installation import code_digest

VARIABLE = "PIPEHANDLER_SUCCESSION"

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that the supervisor handles. They are blocked from before `become` until the new program handles them."""

_SETTLED_SECONDS = 1.0
"""The age from which a changed file is read: a younger one may be half written. Postfix waits as well."""

_TRIAL_SECONDS = 60.0
_LONGEST_ANSWER = 100_000

_PROGRAM = os.path.abspath(sys.argv[0])


class Watch:
    """A watch on paths: detects that a file was changed or replaced, or that a link now leads to another one."""

    def __init__(self, *paths: str) -> None:
        self._paths = paths
        self._seen = self.look()

    def changed(self) -> bool:
        """Whether the files differ from those last accepted."""
        return self.look() != self._seen

    def settled(self) -> bool:
        """Whether no file was changed within the last second."""
        newest = max((found[3] for found in self.look() if found), default=0)
        return not 0 <= time.time_ns() - newest < _SETTLED_SECONDS * 1e9

    def accept(self) -> None:
        """Accept the files as they are now."""
        self._seen = self.look()

    def look(self) -> tuple[tuple[int, int, int, int] | None, ...]:
        """Return the identity of each file as it is now; None for one that is missing."""
        return tuple(map(_identity, self._paths))


def _identity(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def code_watch() -> Watch:
    """Return a watch on this program, the folder of its packages, and the file that identifies the installation."""
    return Watch(_PROGRAM, str(Path(handover.__file__).parents[1]), handover.__file__)


def command() -> list[str]:
    """Return the command that starts this program, by its original name: a link leads to the version installed now."""
    if os.access(_PROGRAM, os.X_OK) and not os.path.isdir(_PROGRAM):
        return [_PROGRAM]
    return [sys.executable, _PROGRAM]


def report_code() -> str:
    """Return the output of `serve --trial`."""
    return json.dumps({"code": code_digest()})


class Trial:
    """A child that tries the installed program with the configuration at `path`.

    When it has exited, `done` is called with the digest of its code, or with None and the reason.
    """

    def __init__(self, path: str, selector: BaseSelector, done: Callable[[int | None, str], None]) -> None:
        self._selector = selector
        self._done = done
        self._output = b""
        self._until = time.monotonic() + _TRIAL_SECONDS
        self._process = subprocess.Popen(  # noqa: S603 # ourselves
            [*command(), "--config", path, "serve", "--trial"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None  # noqa: S101 # a pipe
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        selector.register(self._pipe, EVENT_READ, self._read)

    @property
    def until(self) -> float:
        """The time at which to kill it (time.monotonic)."""
        return self._until

    def kill(self) -> None:
        """Kill it; `done` is called when it has exited."""
        self._until = float("inf")
        self._process.kill()

    def abandon(self) -> None:
        """Kill it without a call of `done`."""
        self._selector.unregister(self._pipe)
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        part = self._pipe.read(_LONGEST_ANSWER)
        if part is None:
            return
        self._output = (self._output + part)[-_LONGEST_ANSWER:]
        if part:
            return
        self._selector.unregister(self._pipe)
        self._pipe.close()
        status = self._process.wait()
        last = self._output.decode("utf-8", "replace").strip().rpartition("\n")[2]
        try:
            code = json.loads(last)["code"] if status == 0 else None
        except (ValueError, TypeError, KeyError):
            code = None
        self._done(code, last or f"status {status}")


class Inheritance(NamedTuple):
    """The state that the new program inherits from its predecessor.

    listener, channel: the descriptors of the listening socket and of the channel to the process that holds the connections
    (connection_holder.py). holder: its pid. workers: those still finishing a message, each with its pid, its descriptor, and what is known of the message.
    counts: since the start of the service. installation: the previous one, whose entrypoints may still connect.
    created: whether the service created its own socket. lmtp: the descriptors of the listening sockets for LMTP.
    lmtp_created: whether the service created those. receivers: the LMTP receivers that finish their messages, each with its
    pid and its descriptor. These three are left out without LMTP: the next program may be an older one.
    """

    listener: int
    channel: int
    holder: int
    workers: list[tuple[int, int, list[Any] | None]]
    counts: dict[str, int]
    installation: str
    created: bool
    lmtp: Sequence[int] = ()
    lmtp_created: bool = True
    receivers: Sequence[tuple[int, int]] = ()


def inherited() -> Inheritance | None:
    """Return the state left by a predecessor in this process; None on a first start, and on further calls."""
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    inheritance = Inheritance(**json.loads(text))
    for descriptor in _descriptors(inheritance):
        os.set_inheritable(descriptor, False)
    return inheritance


def become(inheritance: Inheritance) -> None:
    """Become the installed program, with this one's arguments. Never returns; raises OSError if it fails.

    SIGNALS are to be blocked: what arrives then stays pending across execve(2). One that this program has only noted is lost.
    """
    words = [*command(), *sys.argv[1:]]
    state = inheritance._asdict()
    if not inheritance.lmtp and not inheritance.receivers:
        state = {name: value for name, value in state.items() if name not in inheritance._field_defaults}
    environment = {**os.environ, VARIABLE: json.dumps(state)}
    for descriptor in _descriptors(inheritance):
        os.set_inheritable(descriptor, True)
    try:
        os.execve(words[0], words, environment)  # noqa: S606 # ourselves
    finally:
        for descriptor in _descriptors(inheritance):
            os.set_inheritable(descriptor, False)


def begin_again() -> None:
    """Become the installed program, with this one's arguments and no state. As `become`."""
    words = [*command(), *sys.argv[1:]]
    os.execve(words[0], words, os.environ)  # noqa: S606 # ourselves


def _descriptors(inheritance: Inheritance) -> list[int]:
    return [
        *(inheritance.listener, inheritance.channel, *inheritance.lmtp),
        *(descriptor for _, descriptor, _ in inheritance.workers),
        *(descriptor for _, descriptor in inheritance.receivers),
    ]
