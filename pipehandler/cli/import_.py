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
from pipehandler.ingress import files
from pipehandler.ingress.files import File, Refused
from pipehandler.mail.outcome import DUPLICATE, NEWLY_STORED
from pipehandler.mail.sysexits import EX_DATAERR, EX_OK, EX_TEMPFAIL, EX_UNAVAILABLE
from pipehandler.settings.config import Config, load
from pipehandler.store.connection import Store
from pipehandler.store.errors import is_permanent

from .command import Failure, reported_errors
from .upkeep import INTERRUPTED, Progress, hint_for, opened_for_upkeep, progress

_CONTINUE = "run it again to continue: stored messages are not stored twice"


@click.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--recipient", "recipients", multiple=True, help="The envelope recipient; may be repeated.")
@click.option("--sender", help='The envelope sender, "" for the null sender.')
@click.pass_context
def import_(context: click.Context, paths: Sequence[str], recipients: Sequence[str], sender: str | None) -> None:
    """Store messages from files: a message, an mbox, a Maildir, or a folder of *.eml files; - is stdin.

    Without --recipient and --sender, the envelope is read from the fields that Postfix prepended. A message that is already stored is
    not stored again. Exit statuses: 65 if a message was refused, 75 if one was deferred or the database is unavailable.
    """
    if "" in recipients:
        raise click.UsageError("--recipient is empty")
    recipients = [_text(recipient) for recipient in recipients]
    sender = None if sender is None else _text(sender)
    with reported_errors():
        config = load(context.obj["config"])
    with opened_for_upkeep(context) as store, ExitStack() as stack:
        run = _Import(store, config, recipients, sender)
        try:
            run.import_all(list(run.find_files(paths, stack)))
        except KeyboardInterrupt:
            run.show()
            raise Failure(f"interrupted; {_CONTINUE}", INTERRUPTED) from None
        finally:
            if run.newly_stored and config.store.notify:
                store.announce()
    run.show()
    context.exit(run.status)


class _Import:
    """One run of `import`."""

    def __init__(self, store: Store, config: Config, recipients: Sequence[str], sender: str | None) -> None:
        self.store, self.config, self.recipients, self.sender = store, config, recipients, sender
        self.outcomes: Counter[str] = Counter()
        self.status = EX_OK
        self.newly_stored = False
        self.bar = Progress()

    def find_files(self, paths: Sequence[str], stack: ExitStack) -> Iterator[File]:
        """Yield the files to read; stdin is copied into a temporary file, which `stack` removes."""
        for path in paths:
            try:
                if path == "-":
                    spool = stack.enter_context(tempfile.NamedTemporaryFile(prefix="pipehandler-"))  # noqa: SIM115 # the stack closes it
                    shutil.copyfileobj(sys.stdin.buffer, spool)
                    spool.flush()
                    yield File(spool.name, alias="-")
                else:
                    yield from files.files(path)
            except Refused as error:
                self.refuse(path, str(error))
            except OSError as error:
                self.refuse(path, os.strerror(error.errno or 0))

    def import_all(self, to_import: Sequence[File]) -> None:
        """Import every message of the files."""
        with progress(lambda: len(to_import)) as self.bar:
            for file in to_import:
                for message in files.messages(file, self.config.limits.message_size):
                    for doubt in message.doubts:
                        self.bar.say(f"{_name(message.name)}: {doubt}")
                    if message.refused:
                        self.refuse(message.name, message.refused)
                    else:
                        self.import_message(message.name, message.readings)
                self.bar.advance()

    def import_message(self, name: str, readings: Sequence[bytes]) -> None:
        """Import one message and print its outcome. Raises Failure if the run cannot continue."""
        try:
            envelope = files.envelope(readings[0], self.recipients, self.sender)
        except Refused as error:
            self.refuse(name, str(error))
            return
        result = files.bring_in(readings, envelope, self.config, self.store)
        outcome = result.outcome
        if files.stops(result):
            self.show()
            hint = hint_for(result.sqlstate) if is_permanent(result.sqlstate) else ""
            raise Failure(
                f"{_name(name)}: {outcome.text}: {result.reason}; {hint or _CONTINUE}",
                EX_UNAVAILABLE if hint else EX_TEMPFAIL,
            )
        if files.unfit(result):
            self.refuse(name, f"the database cannot store its envelope: {result.reason} SQLSTATE {result.sqlstate}")
            return
        self.outcomes[outcome.name] += 1
        self.newly_stored = self.newly_stored or outcome in NEWLY_STORED
        line = " ".join(filter(None, (outcome.name, result.message)))
        if outcome.status != EX_OK:
            self.status = EX_TEMPFAIL
        note = files.advice(readings, result, self.store) if outcome == DUPLICATE else result.reason
        self.bar.say(f"{_name(name)}: {line}" + (f": {shorten(note, 300)}" if note else ""))

    def refuse(self, name: str, reason: str) -> None:
        """Count and print a message that is not imported."""
        self.outcomes["refused"] += 1
        self.status = self.status or EX_DATAERR
        self.bar.say(f"{_name(name)}: refused: {reason}")

    def show(self) -> None:
        """Print the number of messages by outcome."""
        counts = ", ".join(f"{number} {outcome}" for outcome, number in self.outcomes.items())
        say(counts or "nothing to import")


def _name(path: str) -> str:
    """Return a file name that is safe on a terminal."""
    return shorten(_text(path), 1000)


def _text(argument: str) -> str:
    """Return an argument as text; octets that are not UTF-8 are escaped, as in pipe(8)'s arguments (mail/envelope.py)."""
    return os.fsencode(argument).decode("utf-8", "backslashreplace")
