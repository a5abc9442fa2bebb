"""Postfix's configuration as Postfix itself reads it: the output of postconf(1) and postmap(1).

Nothing here reads main.cf or master.cf, because only Postfix knows its defaults and how parameters refer to each other.
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
    """Postfix is missing, or cannot read its own configuration; the text is its error message."""


class Service(NamedTuple):
    """A service of master.cf(5).

    options: the parameters set with -o. attributes, argv: for pipe(8), the attributes before argv=, and the words of argv.
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
        """The name of the service for postconf -M and -F."""
        return f"{self.name}/{self.kind}"


class Postfix:
    """The instance whose configuration is in `directory`.

    parameters: those of main.cf and all defaults, expanded. services: those of master.cf. warnings: those of postconf about
    both. Raises PostfixError.
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

    def explicit(self) -> dict[str, str]:
        """Return the parameters that main.cf itself sets, as they are written there. Raises PostfixError."""
        return dict(_pairs(self._run("postconf", "-n")))

    def lookup(self, tables: str, key: str) -> str:
        """Look `key` up in `tables`, as a parameter names them; "" if none has it.

        Raises PostfixError if a table cannot be used.
        """
        for table in words(tables):
            value = self._run("postmap", "-q", key, table, statuses=(0, 1))
            if value:
                return value.rstrip("\n")
        return ""

    def command(self, *arguments: str) -> str:
        """Return a postconf command for an operator to paste."""
        directory = [] if self.directory == DEFAULT_DIRECTORY else ["-c", self.directory]
        return shlex.join(["postconf", *directory, *arguments])

    def _run(self, program: str, *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
        path = find_program(program)
        if path is None:
            raise PostfixError(f"there is no program {program}")
        try:
            process = subprocess.run(  # noqa: S603 # our own arguments
                [path, "-c", self.directory, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostfixError(f"{program}: {error}") from error
        messages = [line.partition(": ")[2] for line in process.stderr.splitlines()]
        warnings = [line.removeprefix("warning: ") for line in messages if line.startswith("warning: ")]
        self.warnings += [warning for warning in warnings if warning not in self.warnings]
        fatal = [line for line in messages if line.startswith(("fatal: ", "panic: "))]
        # postmap exits with 1 both if it cannot read the table and if the key is missing.
        if process.returncode not in statuses or fatal:
            reason = [*fatal, *warnings, f"status {process.returncode}"][0]
            raise PostfixError(f"{program}: {reason}")
        return process.stdout


def find_program(name: str) -> str | None:
    """Return the path of a program of Postfix; None if it is missing."""
    # The PATH of an account other than root has no sbin.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def words(value: str) -> list[str]:
    """Return the words of a list in main.cf, separated by commas or white space; braces, as of inline:, keep them together."""
    return re.findall(r"(?:\{(?:[^{}]|\{[^{}]*\})*\}|[^,\s])+", value)


def seconds(value: str, unit: str = "s") -> int:
    """Read a time in main.cf: a number with a unit, or without one in `unit`. Raises ValueError."""
    number, suffix = (value[:-1], value[-1]) if value[-1:].isalpha() else (value, unit)
    if suffix not in UNITS:
        raise ValueError(f"invalid time {value!r}: expected a number and a unit (s, m, h, d, w)")
    return int(number) * UNITS[suffix]


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition("=")
        yield name.strip(), value.strip()


def _service(line: str, options: dict[str, dict[str, str]]) -> Service:
    name, kind, _private, _unprivileged, chroot, _wakeup, maxproc, *rest = line.split(maxsplit=7)
    command, *arguments = _split(rest[0]) if rest else [""]
    while arguments[:1] == ["-o"]:  # postconf -Px prints these with their values expanded
        del arguments[:2]
    attributes = {}
    while arguments and not arguments[0].startswith("argv="):
        attribute, _, value = arguments.pop(0).partition("=")
        attributes[attribute] = value
    argv = [arguments[0].removeprefix("argv="), *arguments[1:]] if arguments else []
    service_options = options.get(f"{name}/{kind}", {})
    return Service(name, kind, chroot, maxproc, command, service_options, attributes, tuple(argv))


def _split(text: str) -> list[str]:
    """Split into words; text in braces is one word (master.cf(5)), but ${name} is part of its word."""
    parts = re.findall(r"\{(?:[^{}]|\{[^{}]*\})*\}|\S+", text)
    return [part[1:-1].strip() if part.startswith("{") else part for part in parts]
