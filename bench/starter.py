"""Start commands as pipe(8) does, and report what each cost: a program for process.py.

It is as small as pipe(8), for two reasons: the peak memory of a process is at least that of its parent at the fork
(getrusage(2): ru_maxrss survives exec), and a large parent forks slowly.

Each line on stdin is one order, {"command": [...], "environment": {...}, "message": FILE}; each answer is one line.
"""

import json
import os
import sys
import time

_PIPE = 65536


def start(command: list[str], environment: dict[str, str], message: str) -> dict[str, object]:
    """Run `command` with the octets of a file on a pipe as its stdin; stdout and stderr are one pipe."""
    with open(message, "rb", buffering=0) as file:
        stdin, feed = os.pipe()
        output, out = os.pipe()
        first = file.read(_PIPE)
        started = time.monotonic()
        pid = os.posix_spawn(
            command[0],
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, out, 2),
            ],
        )
        os.close(stdin)
        os.close(out)
        try:
            while first:
                os.write(feed, first)
                first = file.read(_PIPE)
        except BrokenPipeError:  # it may exit before it has read everything
            pass
        os.close(feed)
        text = b""
        while more := os.read(output, _PIPE):
            text += more
        os.close(output)
        _, status, usage = os.wait4(pid, 0)
        ended = time.monotonic()
    return {
        "status": os.waitstatus_to_exitcode(status),
        "output": text.decode("ascii", "replace"),
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": ended - started,
        "peak": 1024 * usage.ru_maxrss,
    }


def main() -> None:
    """Carry out orders until stdin ends."""
    os.chdir("/")
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(start(order["command"], order["environment"], order["message"])), flush=True)


if __name__ == "__main__":
    main()
