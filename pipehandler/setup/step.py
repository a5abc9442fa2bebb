"""A step of `pipehandler setup` as a value: what was found, the commands still to run, and the changes to record."""

import shlex
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

_HEAD = "set -eu\numask 022\ncd /\n"
"""The beginning of every script: stop at the first failure, create files that other accounts can read, and use a
current directory that every account may enter."""


class SetupError(Exception):
    """Setup cannot continue; the text names the offending value and the fix."""


class Change(NamedTuple):
    """One thing that a step changes, as recorded for `--remove`.

    kind: a key of _UNDO in undo.py. name: that of the parameter, file, account and so on. before, after: the values
    before and after the change, if the kind needs them.
    """

    kind: str
    name: str
    before: str | None = None
    after: str | None = None


class Step(NamedTuple):
    """One step, for the host as it is now.

    found: a description of what exists; "" for a step that this host does not need. commands: lines for root's shell,
    none if nothing is missing. changes: the changes that they make. differences: the lines of a diff, for values that
    other mail on this host depends on; they need confirmation.
    """

    title: str
    found: str
    commands: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    differences: tuple[str, ...] = ()

    def script(self) -> str:
        """Return the step as part of a shell script, with its title as a comment."""
        return "\n".join([f"# {self.title}: {self.found}", *self.commands]) + "\n"


def whole_script(purpose: str, steps: Sequence[Step]) -> str:
    """Return a shell script with all missing commands. purpose: the comment at its top."""
    return f"#!/bin/sh\n# {purpose}\n{_HEAD}\n" + "\n".join(step.script() for step in steps if step.found)


def run(command: str) -> None:
    """Run a command of a step; it shares our output. Raises SetupError if it fails."""
    status = subprocess.run(["/bin/sh", "-c", _HEAD + command], stdin=subprocess.DEVNULL).returncode  # noqa: S603 # shown
    if status:
        first, *rest = command.split("\n")
        raise SetupError(f"this command failed with status {status}: {first}{' ...' if rest else ''}")


def output(command: Sequence[str], seconds: float = 60, stdin: str = "") -> str | None:
    """Return the output of a read-only command; None if it is missing, fails, or takes longer than `seconds`."""
    try:
        done = subprocess.run(  # noqa: S603 # our own commands
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def here_document(path: str, text: str) -> str:
    """Return the command that writes `text`, which ends with a line break, to a file."""
    return f"cat > {shlex.quote(path)} <<'END'\n{text}END"
