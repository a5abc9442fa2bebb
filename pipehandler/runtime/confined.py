"""A child process that is started before it is needed, does costly work on hostile content, and can be killed at any time.

The parent sends requests over a pipe and reads answers, each a list of octet strings. The child has limits of its own
(setrlimit(2)) and an empty environment: no password, no descriptor but its two pipes, no file that it could write. An
answer is data of bounded size, so a child that its content has taken over cannot harm the parent.
"""

import asyncio
import os
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

Fields = Sequence[bytes]

_LARGEST = 32_000_000  # octets of one message between parent and child
_SPARE_CPU = 2  # seconds of CPU time beyond the deadline, after which the kernel ends a child whose parent has died


class Ended(Exception):
    """The child has ended, or does not keep to the protocol."""


class ConfinedProcess:
    """One child, which runs `module` as a program; that calls `serve`. Use it for one request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, module: str) -> "ConfinedProcess":
        """Start a child; raises OSError if it cannot be started. It is ready when it has answered its first request."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", module,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env={}, cwd="/", start_new_session=True, limit=1 << 20,
            )
        )  # fmt: skip

    async def send(self, fields: Fields) -> None:
        """Send a request. Raises Ended if the child has ended."""
        assert self._process.stdin  # noqa: S101 # a pipe, by the arguments of its start
        try:
            self._process.stdin.write(_packed(fields))
            await self._process.stdin.drain()
        except OSError as error:
            raise Ended from error

    async def receive(self) -> list[bytes]:
        """Return the next answer. Raises Ended if the child has ended, or sends something else."""
        assert self._process.stdout  # noqa: S101 # a pipe, by the arguments of its start
        read = self._process.stdout.readexactly
        try:
            lengths = _lengths(await read(_HEAD))
            lengths = _lengths(await read(8 * lengths[0])) if lengths[0] <= _MOST_FIELDS else [_LARGEST + 1]
            if sum(lengths) > _LARGEST:
                raise Ended
            return [await read(length) for length in lengths]
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Ended from error

    async def kill(self) -> None:
        """End the child, whatever it does, and wait until it has ended. May be called again."""
        with suppress(ProcessLookupError):
            self._process.kill()
        assert self._process.stdin  # noqa: S101 # a pipe, by the arguments of its start
        self._process.stdin.close()
        await self._process.wait()
        with suppress(OSError):  # what was not yet sent is lost, as it should be
            await self._process.stdin.wait_closed()


def serve(work: Callable[[list[bytes]], Iterable[Fields]], memory: int, seconds: int) -> None:
    """Answer requests from stdin until it ends; this is the main loop of a child.

    work: takes the fields of a request, and returns the answers. memory: octets of address space beyond what the child
    has at its start. seconds: CPU time for one request; a little more ends the process.
    """
    _confine(memory)
    requests, answers = open(0, "rb", buffering=1 << 20), open(1, "wb", buffering=0)  # noqa: SIM115 # for as long as the process lives
    while head := requests.read(_HEAD):
        lengths = _lengths(requests.read(8 * _lengths(head)[0]))
        fields = [requests.read(length) for length in lengths]
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = int(used.ru_utime + used.ru_stime) + seconds + _SPARE_CPU
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))
        for answer in work(fields):
            left = memoryview(_packed(answer))
            while left:
                left = left[answers.write(left) :]


def _confine(memory: int) -> None:
    with open("/proc/self/statm", "rb") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
    for kind, limit in (
        (resource.RLIMIT_AS, size + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


_HEAD = 8
_MOST_FIELDS = 1000


def _packed(fields: Fields) -> bytes:
    """The number of fields, their lengths, each in eight octets, and the fields."""
    return b"".join(length.to_bytes(8) for length in (len(fields), *map(len, fields))) + b"".join(fields)


def _lengths(octets: bytes) -> list[int]:
    return [int.from_bytes(octets[at : at + 8]) for at in range(0, len(octets), 8)]
