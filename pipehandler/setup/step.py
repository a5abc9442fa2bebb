"""A step of `pipehandler setup` as a value: what was found, the commands that are missing, and what undoes them."""

import shlex
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

_HEAD = "set -eu\numask 022\ncd /\n"
"""What every script of ours begins with: it stops at the first failure, other accounts may read what it makes, and no program
complains about a current directory that its account may not enter."""


class SetupError(Exception):
    """Setup cannot go on; the text names the value that is in the way, and the way out."""


class Change(NamedTuple):
    """One thing that a step changes, as recorded for `--remove`.

    kind: a key of UNDO in undo.py. name: of the parameter, the file, the account, ... before, after: what it was and what setup made
    of it, where the kind needs that.
    """

    kind: str
    name: str
    before: str | None = None
    after: str | None = None


class Step(NamedTuple):
    """One step, for the host as it is now.

    found: what is there, in words; "" for a step that this host does not need. commands: lines for root's shell; none if nothing is missing. changes: what they change.
    differences: the lines of a diff, for values of this host that other mail depends on; they need a confirmation.
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
    """Return a shell script that does what is missing. purpose: the comment at its top."""
    return f"#!/bin/sh\n# {purpose}\n{_HEAD}\n" + "\n".join(step.script() for step in steps if step.found)


def run(command: str) -> None:
    """Run a command of a step, with its output on ours. Raises SetupError if it fails."""
    status = subprocess.run(["/bin/sh", "-c", _HEAD + command], stdin=subprocess.DEVNULL).returncode  # noqa: S603 # shown
    if status:
        raise SetupError(f"this command failed with status {status}: {command}")


def output(command: Sequence[str], seconds: float = 60, stdin: str = "") -> str | None:
    """Return what a command prints that changes nothing; None if it is missing, fails, or takes too long."""
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
