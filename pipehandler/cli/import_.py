"""`pipehandler import`: store messages from files."""

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import click

from pipehandler.cli.terminal import say, shorten
from pipehandler.ingress import archived, files
from pipehandler.ingress.archived import Receipt, Refused
from pipehandler.ingress.files import File, Message
from pipehandler.mail.outcome import DUPLICATE, NEWLY_STORED
from pipehandler.mail.sysexits import EX_DATAERR, EX_OK, EX_TEMPFAIL, EX_UNAVAILABLE
from pipehandler.settings.config import Config
from pipehandler.settings.config_file import load
from pipehandler.store.errors import is_permanent
from pipehandler.store.message_store import MessageStore

from .command import Failure, echo_json, local, reported_errors
from .upkeep import INTERRUPTED, Progress, hint_for, opened_for_upkeep, progress

_CONTINUE = "run it again to continue: stored messages are not stored twice"
_WOULD = {True: "duplicate", False: "would be stored", None: "would be stored, or a duplicate"}
_SOURCES = {
    "Received": "by its Received field",
    "mbox line": "by its mbox line",
    "file": "by the time of its file",
    "now": "now",
}


def _addresses(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if (
            "@" not in value
        ):  # what RFC 5321 forbids beyond that may have been delivered, and is repaired by this command
            raise click.BadParameter(f"{value!r} is not an address: expected LOCAL@DOMAIN")
    return tuple(map(_text, values))


@click.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--recipient", "recipients", multiple=True, callback=_addresses, help="The envelope recipient; may be repeated."
)
@click.option("--sender", help='The envelope sender, "" for the null sender.')
@click.option("-n", "--dry-run", is_flag=True, help="Store nothing; show what would be stored.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what needs attention, and the summary.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on each line, for programs; the last is the summary."
)
@click.pass_context
def import_(
    context: click.Context,
    paths: Sequence[str],
    recipients: Sequence[str],
    sender: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Store messages from files: a message, an mbox, a Maildir with its folders, or a folder of *.eml files; - is stdin.

    Files that are compressed with gzip or zstd are read as well. Without --recipient and --sender, the envelope is read from
    the fields that Postfix prepended. A message that is already stored is not stored again, also if that was before its address
    had a lease. Each line says when a message was received, and what says so. Exit statuses: 65 if something was refused, 75
    if a message was deferred or the database is unavailable.
    """
    sender = None if sender is None else _text(sender)
    with reported_errors():
        config = load(context.obj["config"])
    with opened_for_upkeep(context) as store, ExitStack() as stack:
        run = _Import(store, config, recipients, sender, _Output(quiet, as_json, dry_run))
        try:
            run.import_all(list(run.find_files(paths, stack)))
        except KeyboardInterrupt:
            run.output.show()
            raise Failure(f"interrupted; {_CONTINUE}", INTERRUPTED) from None
        finally:
            if run.newly_stored and config.store.notify:
                store.announce()
    run.output.show()
    context.exit(run.status)


class _Output:
    """What one run shows: a line or an object for each message, and the number of messages by outcome."""

    def __init__(self, quiet: bool, as_json: bool, dry_run: bool) -> None:
        self.quiet, self.as_json, self.dry_run = quiet, as_json, dry_run
        self.outcomes: Counter[str] = Counter()
        self.bar = Progress()

    def add(
        self,
        name: str,
        outcome: str,
        *,
        message: str = "",
        receipt: Receipt | None = None,
        note: str = "",
        doubts: Sequence[str] = (),
    ) -> None:
        """Count and show one message. receipt: of one that is new; note: what needs attention."""
        self.outcomes[outcome] += 1
        if self.quiet and not note and not doubts:
            return
        if self.as_json:
            time, source = receipt or (None, None)
            line = {"name": _text(name), "outcome": outcome, "message": message or None, "received_at": time}
            echo_json({**line, "received_by": source, "note": note or None, "doubts": doubts}, indent=None)
            return
        for doubt in doubts:
            self.bar.say(f"{_name(name)}: {doubt}")
        text = " ".join(filter(None, (outcome, message)))
        if receipt:
            text += f", received {local(receipt.time)} {_SOURCES[receipt.source]}"
        self.bar.say(f"{_name(name)}: {text}" + (f": {shorten(note, 300)}" if note else ""))

    def show(self) -> None:
        """Print the number of messages by outcome."""
        if self.as_json:
            echo_json({"summary": self.outcomes, "dry_run": self.dry_run}, indent=None)
            return
        say(", ".join(f"{number} {outcome}" for outcome, number in self.outcomes.items()) or "nothing to import")


class _Import:
    """One run of `import`."""

    def __init__(
        self, store: MessageStore, config: Config, recipients: Sequence[str], sender: str | None, output: _Output
    ) -> None:
        self.store, self.config, self.recipients, self.sender = store, config, recipients, sender
        self.output = output
        self.status = EX_OK
        self.newly_stored = False

    def find_files(self, paths: Sequence[str], stack: ExitStack) -> Iterator[File]:
        """Yield the files to read; stdin is copied into a temporary file, which `stack` removes."""
        for path in paths:
            try:
                if path == "-":
                    spool = stack.enter_context(tempfile.NamedTemporaryFile(prefix="pipehandler-"))  # noqa: SIM115 # the stack closes it
                    shutil.copyfileobj(sys.stdin.buffer, spool)
                    spool.flush()
                    yield File(spool.name, alias="-", dated=False)
                else:
                    yield from files.files(path)
            except Refused as error:
                self.refuse(path, str(error))
            except OSError as error:
                self.refuse(path, os.strerror(error.errno or 0))

    def import_all(self, to_import: Sequence[File]) -> None:
        """Import every message of the files."""
        sizes = [max(1, file.size) for file in to_import]
        with progress(lambda: sum(sizes), enabled=not self.output.as_json) as self.output.bar:
            for file, size in zip(to_import, sizes, strict=True):
                done = 0
                for message in files.messages(file, self.config.limits.message_size):
                    if message.refused:
                        self.refuse(message.name, message.refused, message.doubts)
                    else:
                        self.import_message(message)
                    part = min(size - done, round(message.share * size))
                    done += part
                    self.output.bar.advance(part)
                self.output.bar.advance(size - done)

    def import_message(self, message: Message) -> None:
        """Import one message and show its outcome. Raises Failure if the run cannot continue."""
        name, readings, receipt, doubts = message.name, message.readings, message.receipt, message.doubts
        assert receipt is not None  # noqa: S101 # where there are readings
        try:
            envelope = archived.envelope(readings[0], self.recipients, self.sender)
        except Refused as error:
            self.refuse(name, str(error), doubts)
            return
        if self.output.dry_run:
            stored = archived.is_stored(readings, envelope, self.config, self.store)
            self.output.add(name, _WOULD[stored], receipt=None if stored else receipt, doubts=doubts)
            return
        result = archived.bring_in(readings, envelope, receipt.time, self.config, self.store)
        outcome = result.outcome
        if archived.stops(result):
            self.output.show()
            hint = hint_for(result.sqlstate) if is_permanent(result.sqlstate) else ""
            raise Failure(
                f"{_name(name)}: {outcome.text}: {result.reason}; {hint or _CONTINUE}",
                EX_UNAVAILABLE if hint else EX_TEMPFAIL,
            )
        if archived.unfit(result):
            reason = f"the database cannot store its envelope: {result.reason} SQLSTATE {result.sqlstate}"
            self.refuse(name, reason, doubts)
            return
        new = outcome in NEWLY_STORED
        self.newly_stored = self.newly_stored or new
        if outcome.status != EX_OK:
            self.status = EX_TEMPFAIL
        note = archived.advice(readings, result, self.store) if outcome == DUPLICATE else result.reason
        self.output.add(
            name, outcome.name, message=result.message, receipt=receipt if new else None, note=note, doubts=doubts
        )

    def refuse(self, name: str, reason: str, doubts: Sequence[str] = ()) -> None:
        """Count and show a message that is not imported."""
        self.status = self.status or EX_DATAERR
        self.output.add(name, "refused", note=reason, doubts=doubts)


def _name(path: str) -> str:
    """Return a file name that is safe on a terminal."""
    return shorten(_text(path), 1000)


def _text(argument: str) -> str:
    """Return an argument as text; octets that are not UTF-8 are escaped, as in pipe(8)'s arguments (mail/envelope.py)."""
    return os.fsencode(argument).decode("utf-8", "backslashreplace")
