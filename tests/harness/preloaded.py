"""The program's commands, without the start of an interpreter for each.

Starting Python and importing psycopg costs more than most commands do. So one process imports the whole program, and is
forked for each command, which then runs as a process of its own, as the console script runs it. What depends on the start
itself (options of the interpreter, the environment of a service manager, a broken installation) is started for real.
"""

import atexit
import gc
import json
import os
import pkgutil
import secrets
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

PROGRAM = str(Path(sys.executable).with_name("pipehandler"))
"""The console script."""

PATIENCE = 120.0
"""Seconds that a command may take."""

_LONGEST = 1 << 17  # octets of a command with its environment


def run(
    *words: object, environment: Mapping[str, str] = os.environ, stdin: bytes = b"", timeout: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `pipehandler` with these arguments, in /; stdin, stdout and stderr are files.

    Raises TimeoutError, and kills it, after `timeout` seconds, otherwise PATIENCE.
    """
    command = [PROGRAM, *map(str, words)]
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        os.pwrite(files[0], stdin, 0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(PATIENCE if timeout is None else timeout)
            channel.connect(_server())
            socket.send_fds(channel, [json.dumps([command, dict(environment)]).encode()], files)
            pid = int(channel.recv(100))
            try:
                status = int(channel.recv(100))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, status, _content(files[1]), _content(files[2]))
    finally:
        for file in files:
            os.close(file)


def run_text(*words: object) -> subprocess.CompletedProcess[str]:
    """The same, with text as output, and in this process's environment."""
    done = run(*words)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


@cache
def _server() -> str:
    """Start the process that is forked; it ends with this one. Returns its socket, an abstract one."""
    address = f"\0pipehandler-preloaded-{secrets.token_hex(8)}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen()
    life, inherited = socket.socketpair()  # closed when this process ends, however it ends
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(listener.fileno()), str(inherited.fileno())],
        pass_fds=(listener.fileno(), inherited.fileno()),
        env={name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")} | {"LANG": "C"},
        stdin=subprocess.DEVNULL,
        cwd="/",
    )
    listener.close()
    inherited.close()

    @atexit.register
    def end() -> None:
        life.close()
        process.wait()

    return address


def _serve(listener: socket.socket, life: socket.socket) -> None:
    """Fork for each command; returns in the process that becomes one."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the waiting processes are never awaited themselves
    os.set_blocking(listener.fileno(), False)
    while True:
        readable, _, _ = select.select([listener, life], [], [])
        if life in readable:
            os._exit(0)
        channel, _ = listener.accept()
        if os.fork():
            channel.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        request, files, _, _ = socket.recv_fds(channel, _LONGEST, 3)
        words, environment = json.loads(request)
        if pid := os.fork():
            channel.send(str(pid).encode())
            channel.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
            os._exit(0)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        for each in (channel, listener, life):
            each.close()
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = words
        return


if __name__ == "__main__":
    import pipehandler.fence
    from pipehandler import cli

    for found in pkgutil.iter_modules(cli.__path__):
        import_module(f"{cli.__name__}.{found.name}")
    gc.collect()
    gc.freeze()
    _serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
    pipehandler.fence.main()
