"""How a program that pipe(8) runs may end: its exit status or signal, and its output. A separate transport on a private
Postfix, with the status filter of the example."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipehandler.postfix import templates

from . import account
from .postfix import Postfix

SIGNALS = tuple(number for number in range(1, 32) if number not in (13, 17, 18, 19, 20, 21, 22, 23, 28))
"""The signals that end a program by default, without SIGPIPE, which Postfix lets its programs ignore."""

OUTPUTS = (
    "",
    "noise",
    "2.0.0 stored 00000000-0000-0000-0000-000000000000",
    "2.0.0 stored before 00000000-0000-0000-0000-000000000000",
    "2.0.0 stored\n4.3.0 internal fault",
    "4.3.0 internal fault",
    "4.3.5 mail system incorrectly configured",
    "5.1.1 libfoo 5.1.1 not found",
    "5.1.1 user unknown",
    "5.1.1 recipient unknown, says libfoo",
    "5.1.1 Recipient Unknown",
    "5.3.4 message larger than this system accepts\nTraceback (most recent call last):",
    "5.7.1 permission denied",
    "5.0.0 stored",
    "5.0.0",
    "Traceback (most recent call last):\n  File 5.1.1\nModuleNotFoundError: No module named 'encodings'",
    "/bin/sh: 1: 5.1.1: not found",
    "5.5.0 \x1b[31m\xff\x00 ${1} $1 %s",
    "9.9.9 nothing",
    "x" * 1000,
)
"""Twenty outputs, none of which is a bounce line of pipehandler."""

_PROGRAM = """#!/bin/sh
cat > /dev/null
local=${{1%%@*}}
cat '{folder}'/output-"${{local#*-}}"
how=${{local%%-*}}
case $how in
s*) ulimit -c 0; kill -"${{how#s}}" $$; exit 3;;
esac
exit "$how"
"""


class End(NamedTuple):
    """How the program ends: "75", or "s15" for a signal, and the number of its output."""

    how: str
    output: int

    @property
    def recipient(self) -> str:
        """The recipient for whom it ends so."""
        return f"{self.how}-{self.output}@example.com"


class Exits:
    """A Postfix in `folder`, not yet started, whose transport runs a program that ends as the recipient's name
    determines."""

    def __init__(self, folder: Path, outputs: Iterable[str] = OUTPUTS) -> None:
        self.postfix = Postfix(folder)
        program = folder / "program"
        program.write_text(_PROGRAM.format(folder=folder))
        program.chmod(0o755)
        for number, output in enumerate(outputs):
            (folder / f"output-{number}").write_bytes(output.encode("latin-1"))
            (folder / f"output-{number}").chmod(0o644)
        table = folder / "etc" / "pipehandler_status_filter"
        text = templates.lines(
            "pipehandler_status_filter",
            user="x",
            config="x",
            socket="x",
            config_directory="x",
            domain="x",
            maxproc=1,
        )
        table.write_text(text)
        # Not a second entry of a parameter: each program of Postfix would log a warning at its start, and postlogd(8), which
        # logs to itself, stands still if its socket holds ten lines of others then (net.unix.max_dgram_qlen).
        self.postfix.postconf(
            "-e",
            *("virtual_mailbox_domains=example.com", "virtual_transport=program", "virtual_mailbox_maps=static:all"),
            *("program_destination_recipient_limit=1", "program_destination_concurrency_failed_cohort_limit=0"),
            *("queue_run_delay=1d", "minimal_backoff_time=1d", "maximal_backoff_time=1d"),
            *("default_destination_recipient_limit=1", "qmgr_message_recipient_limit=20000"),
        )
        self.postfix.add(
            "master.cf",
            f"program unix - n n - 8 pipe\n  -o pipe_delivery_status_filter=regexp:{table}\n"
            f"  user={account.NAME} argv={program} ${{recipient}}\n",
        )

    def results(self, ends: list[End], seconds: float) -> dict[End, tuple[str, str, str]]:
        """Send one message for each end; returns the dsn, the status and the text that Postfix logs."""
        wanted = {end.recipient: end for end in ends}
        for first in range(0, len(ends), 100):
            recipients = list(wanted)[first : first + 100]
            self.postfix.send(b"Subject: x\n\nx\n", "", *recipients)
        until = time.monotonic() + seconds
        while True:
            found = {each["to"]: each for each in self.postfix.deliveries()}
            if wanted.keys() <= found.keys():
                return {end: (found[to]["dsn"], found[to]["status"], found[to]["text"]) for to, end in wanted.items()}
            if time.monotonic() > until:
                missing = sorted(wanted.keys() - found.keys())
                raise TimeoutError(
                    f"no result for {len(missing)} of {len(wanted)}: {missing[:3]}\n{self.postfix.log()[-2000:]}"
                )
            time.sleep(0.2)
