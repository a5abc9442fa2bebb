"""Postfix's configuration as Postfix itself understands it: what postconf(1) and postmap(1) print.

Nothing here reads main.cf or master.cf, because only Postfix knows its defaults and how one value makes another.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from ..settings.duration import UNITS

DEFAULT_DIRECTORY = "/etc/postfix"
_SECONDS = 60


class PostfixError(Exception):
    """Postfix is not there, or cannot read its own configuration; the text is what it says."""


class Service(NamedTuple):
    """A service of master.cf(5).

    options: what -o sets, by parameter. attributes, argv: of pipe(8), what stands before argv= and after it.
    """

    name: str
    kind: str
    chroot: str
    maxproc: str
    command: str
    options: dict[str, str]
    attributes: dict[str, str]
    argv: tuple[str, ...]

    @property
    def pattern(self) -> str:
        """How postconf -M and -F name it."""
        return f"{self.name}/{self.kind}"


class Postfix:
    """The instance whose configuration is in `directory`.

    parameters: those of main.cf and all defaults, expanded. services: those of master.cf. warnings: what postconf says
    about both. Raises PostfixError.
    """

    def __init__(self, directory: str = DEFAULT_DIRECTORY) -> None:
        self.directory = directory
        self.warnings: list[str] = []
        self.parameters = dict(_pairs(self._run("postconf", "-x")))
        options: dict[str, dict[str, str]] = {}
        for name, value in _pairs(self._run("postconf", "-Px")):
            service, _, parameter = name.rpartition("/")
            options.setdefault(service, {})[parameter] = value
        lines = self._run("postconf", "-M").splitlines()
        self.services = [_service(line, options) for line in lines if line]

    def lookup(self, tables: str, key: str) -> str:
        """What the first of `tables` (as a parameter names them) that knows `key` has for it; "" where none does.

        Raises PostfixError where a table cannot be used.
        """
        for table in words(tables):
            found = self._run("postmap", "-q", key, table, statuses=(0, 1))
            if found:
                return found.rstrip("\n")
        return ""

    def command(self, *arguments: str) -> str:
        """A postconf command for a person to paste."""
        where = [] if self.directory == DEFAULT_DIRECTORY else ["-c", self.directory]
        return shlex.join(["postconf", *where, *arguments])

    def _run(self, program: str, *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
        path = find_program(program)
        if path is None:
            raise PostfixError(f"there is no program {program}")
        try:
            done = subprocess.run(  # noqa: S603 # our own arguments
                [path, "-c", self.directory, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostfixError(f"{program}: {error}") from error
        said = [line.partition(": ")[2] for line in done.stderr.splitlines()]
        warnings = [line.removeprefix("warning: ") for line in said if line.startswith("warning: ")]
        self.warnings += [warning for warning in warnings if warning not in self.warnings]
        fatal = [line for line in said if line.startswith(("fatal: ", "panic: "))]
        # postmap leaves with 1 for a table that it cannot read, and for a key that is not there.
        if done.returncode not in statuses or fatal:
            reason = [*fatal, *warnings, f"status {done.returncode}"][0]
            raise PostfixError(f"{program}: {reason}")
        return done.stdout


def find_program(name: str) -> str | None:
    """The path of a program of Postfix, None if it is not installed; sbin is not in the PATH of every account."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def words(value: str) -> list[str]:
    """The words of a list in main.cf, which commas or blanks separate."""
    return [word for word in re.split(r"[,\s]+", value) if word]


def seconds(value: str, unit: str = "s") -> int:
    """A time in main.cf: a number and its unit, or that of the parameter. Raises ValueError."""
    number, suffix = (value[:-1], value[-1]) if value[-1:].isalpha() else (value, unit)
    if suffix not in UNITS:
        raise ValueError(f"{value!r} is no time")
    return int(number) * UNITS[suffix]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition("=")
        yield name.strip(), value.strip()


def _service(line: str, options: dict[str, dict[str, str]]) -> Service:
    name, kind, _private, _unprivileged, chroot, _wakeup, maxproc, *rest = line.split(maxsplit=7)
    command, *arguments = _split(rest[0]) if rest else [""]
    while arguments[:1] == ["-o"]:  # -Px has told them better
        del arguments[:2]
    attributes = {}
    while arguments and not arguments[0].startswith("argv="):
        attribute, _, value = arguments.pop(0).partition("=")
        attributes[attribute] = value
    argv = [arguments[0].removeprefix("argv="), *arguments[1:]] if arguments else []
    own = options.get(f"{name}/{kind}", {})
    return Service(name, kind, chroot, maxproc, command, own, attributes, tuple(argv))


def _split(text: str) -> list[str]:
    """Words; what stands in braces is one (master.cf(5)), but ${name} is part of its word."""
    found = re.findall(r"\{(?:[^{}]|\{[^{}]*\})*\}|\S+", text)
    return [word[1:-1].strip() if word.startswith("{") else word for word in found]
