"""Start single processes as pipe(8) does, and measure what each of them costs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from harness import account
from harness.handler import ENVIRONMENT

_PROGRAM = Path(__file__).with_name("starter.py")


class Ended(NamedTuple):
    """How a process ended: status and output; seconds of CPU and of wall time; peak resident memory in octets."""

    status: int
    output: str
    cpu: float
    wall: float
    peak: int


class Starter:
    """A small process under the handler's account that starts others; a context manager."""

    def __init__(self, folder: Path) -> None:
        program = folder / "starter.py"  # the checkout may be closed to the account
        shutil.copy(_PROGRAM, program)
        self._message = folder / "message"
        self._process = subprocess.Popen(
            account.command([sys.executable, "-I", "-S", str(program)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, command: list[str], message: bytes, *expected: int) -> Ended:
        """Run `command` with `message` on its stdin. Raises if its exit status is not the expected one."""
        assert self._process.stdin
        assert self._process.stdout
        self._message.write_bytes(message)
        self._message.chmod(0o644)
        order = {"command": command, "environment": ENVIRONMENT, "message": str(self._message)}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        ended = Ended(**json.loads(self._process.stdout.readline()))
        if ended.status not in (expected or (0,)):
            raise RuntimeError(f"{command} left with {ended.status}: {ended.output}")
        return ended
