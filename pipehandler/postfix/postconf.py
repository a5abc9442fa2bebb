"""Postfix's configuration as Postfix itself reads it: the output of postconf(1) and postmap(1).

Nothing here reads main.cf or master.cf, because only Postfix knows its defaults and how parameters refer to each other.
"""

import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..settings.duration import UNITS

DEFAULT_DIRECTORY = "/etc/postfix"
_SECONDS = 60
_AS_WE_ARE: Mapping[str, Any] = MappingProxyType({})


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

    def query(self, table: str, keys: Iterable[str]) -> dict[str, str]:
        """Look `keys` up in one table with the account of Postfix's daemons (mail_owner), and return those that it has.

        A table behind proxymap(8), which has that account too, is opened here. Needs root. Raises PostfixError with the
        table's own messages.
        """
        keys = list(keys)
        output = self._run(
            *("postmap", "-q", "-", table.removeprefix("proxy:")),
            statuses=(0, 1),
            keys=keys,
            identity=self._mail_owner(),
        )
        return dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)

    def is_running(self) -> bool:
        """Whether the master of this instance holds its lock (master(8), -t). Needs root. Raises PostfixError."""
        program = os.path.join(self.parameters["daemon_directory"], "master")
        try:
            process = subprocess.run([program, "-c", self.directory, "-t"], capture_output=True, timeout=_SECONDS)  # noqa: S603 # our own arguments
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostfixError(f"{program}: {error}") from error
        return process.returncode != 0

    def command(self, *arguments: str, program: str = "postconf") -> str:
        """Return a command of Postfix for an operator to paste."""
        directory = [] if self.directory == DEFAULT_DIRECTORY else ["-c", self.directory]
        return shlex.join([program, *directory, *arguments])

    def _mail_owner(self) -> dict[str, Any]:
        """Return subprocess arguments that switch to mail_owner as Postfix does: no other groups."""
        try:
            account = pwd.getpwnam(self.parameters["mail_owner"])
        except KeyError:
            raise PostfixError(f"there is no account {self.parameters['mail_owner']} (mail_owner)") from None
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [account.pw_gid]}

    def _run(
        self,
        program: str,
        *arguments: str,
        statuses: tuple[int, ...] = (0,),
        keys: Iterable[str] = (),
        identity: Mapping[str, Any] = _AS_WE_ARE,
    ) -> str:
        path = find_program(program)
        if path is None:
            raise PostfixError(f"there is no program {program}")
        try:
            process: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603 # our own arguments
                [path, "-c", self.directory, *arguments],
                input="".join(f"{key}\n" for key in keys),
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=_SECONDS,
                **identity,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostfixError(f"{program}: {error}") from error
        messages = [line.partition(": ")[2] for line in process.stderr.splitlines()]
        warnings = [line.removeprefix("warning: ") for line in messages if line.startswith("warning: ")]
        self.warnings += [warning for warning in warnings if warning not in self.warnings]
        fatal = [line for line in messages if line.startswith(("fatal: ", "panic: "))]
        # postmap exits with 1 both if it cannot read the table and if the key is missing.
        if process.returncode not in statuses or fatal:
            # Of a table that cannot be queried, the fatal line has the name and the warning before it the reason.
            reasons = [*warnings[-1:], *fatal] if "-q" in arguments else [*fatal, *warnings]
            reason = "; ".join(reasons[: 2 if "-q" in arguments else 1]) or f"status {process.returncode}"
            raise PostfixError(f"{program}: {reason}")
        return process.stdout


def find_program(name: str) -> str | None:
    """Return the path of a program of Postfix; None if it is missing."""
    # The PATH of an account other than root has no sbin.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def words(value: str) -> list[str]:
    """Return the words of a list in main.cf, separated by commas or white space; braces, as of inline:, keep them together."""
    return re.findall(r"(?:\{(?:[^{}]|\{[^{}]*\})*\}|[^,\s])+", value)


def tables(value: str) -> list[str]:
    """Return the lookup tables of a list in main.cf; text in braces is part of its word (DATABASE_README)."""
    return [word for word in re.findall(r"(?:[^\s,{}]|\{(?:[^{}]|\{[^{}]*\})*\})+", value) if _is_table(word)]


def _is_table(word: str) -> bool:
    return re.match(r"!?[a-z][a-z0-9_-]*:", word) is not None


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
