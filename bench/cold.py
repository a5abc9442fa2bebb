"""What a cold delivery costs beside the usual script: CPU and wall time of whole processes, in one run.

    bench/run cold [--rounds 30]

Each round starts all of them in turn, on the same 12 KB newsletter, as another user would start them; the figures are medians.
The floor is the bare interpreter. Nothing is asserted: machines differ, the ratio is what counts.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from real import account
from real.database import Database
from real.handler import ENVIRONMENT, Handler
from real.postgresql import PostgreSQL

from pipehandler.outage import Outage
from pipehandler.sysexits import EX_OK, EX_TEMPFAIL

USUAL = Path(__file__).with_name("usual.py")


def newsletter(number: int, octets: int = 12_000) -> bytes:
    """A newsletter of about `octets`, text and HTML, unlike any other."""
    paragraph = "Zum Frühling wächst der Garten: drei Vorschläge für jeden Balkon. " * 3
    half = (octets - 900) // 2
    text = (f"{paragraph}\n" * (half // len(paragraph)))[:half]
    html = (f"<p style='margin:0'>{paragraph}</p>\n" * (half // len(paragraph)))[:half]
    return (
        "Received: from out.sender.example (out.sender.example [192.0.2.7])\n\tby mx.example.net (Postfix) with ESMTPS id 4X"
        f"{number:012d}\n\tfor <member@example.com>; Mon, 02 Mar 2026 07:30:02 +0900 (KST)\n"
        "From: =?utf-8?q?Die_G=C3=A4rtnerei?= <news@sender.example>\nTo: member@example.com\n"
        "Subject: =?utf-8?b?RsO8ciBqZWRlbiBCYWxrb24=?=\nDate: Mon, 02 Mar 2026 07:30:00 +0900\n"
        f"Message-ID: <{number}.bench@sender.example>\nList-Id: Garden <garden.sender.example>\n"
        "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n\n"
        f"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{text}\n"
        f"--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{html}\n--b--\n"
    ).encode()


def measure(command: list[str], message: bytes, expected: int) -> tuple[float, float]:
    """Run `command` once on `message`: CPU and wall time in ms. Raises where it leaves with another status."""
    started = time.perf_counter()
    running = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, cwd="/", **account.identity()
    )
    assert running.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it may leave before it has read
        running.stdin.write(message)
        running.stdin.close()
    _, status, usage = os.wait4(running.pid, 0)
    wall = time.perf_counter() - started
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode != expected:
        raise RuntimeError(f"{command} left with {running.returncode}")
    return 1000 * (usage.ru_utime + usage.ru_stime), 1000 * wall


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=30)
    rounds = options.parse_args().rounds
    with account.folder("pipehandler-bench-") as folder:
        server = PostgreSQL(folder / "pg", 16).start()
        try:
            with Database.fresh(server) as database:
                database.execute(
                    "CREATE TABLE usual (message_id text, subject text, sender text, body text, raw bytea)"
                )
                handler = Handler(folder / "up", database.conninfo)
                refused = Handler(folder / "down", "host=/nonexistent")
                commands = {
                    "bare interpreter": [sys.executable, "-I", "-c", "pass"],
                    "usual script": [sys.executable, str(USUAL), database.admin],
                    "pipehandler, cold": handler.command(),
                    "refused in an outage": refused.command(),
                }
                results: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
                for number in range(rounds + 1):
                    for name, command in commands.items():
                        if command is commands["refused in an outage"]:
                            Outage(str(refused.state)).failed()
                        result = measure(command, newsletter(number), EX_TEMPFAIL if "refused" in name else EX_OK)
                        if number:  # the first warms the caches
                            results[name].append(result)
                stored = (
                    database.value("SELECT count(*) FROM pipehandler.delivery"),
                    database.value("SELECT count(*) FROM usual"),
                )
        finally:
            server.stop()
    if stored != (rounds + 1, rounds + 1):
        raise RuntimeError(f"{stored} stored instead of {rounds + 1} each")
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in results.items()
    }
    usual = medians["usual script"][0]
    print(f"{rounds} rounds, {len(newsletter(1))} octets, {os.cpu_count()} cores; medians")
    print(f"{'':<20}{'CPU ms':>8}{'wall ms':>9}{'CPU ratio to usual':>20}")
    for name, (cpu, wall) in medians.items():
        print(f"{name:<20}{cpu:>8.1f}{wall:>9.1f}{cpu / usual:>20.2f}")


if __name__ == "__main__":
    main()
