"""`pipehandler follow`: what arrives, as it arrives."""

import logging
import os
import select
import threading

import click

from pipehandler.cli.terminal import cut
from pipehandler.store.roles import READER
from pipehandler.store.stream import NOW, Delivery, follow

from .command import chosen_conninfo, echo_json, local, told
from .upkeep import INTERRUPTED, hinted


class _Stderr(logging.Handler):
    """What the stream tells of the database, for a person."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(cut(record.getMessage(), 1000), err=True)


@click.command("follow")
@click.option("--recipient", help="Only what is for this address.")
@click.option("--lease", type=click.IntRange(min=1), help="Only what belongs to this lease of an address.")
@click.option("--cursor", help="Go on after the delivery that had this cursor.")
@click.option("--from-start", is_flag=True, help="Begin with the first delivery that is stored.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object on each line, for programs.")
@click.pass_context
def follow_(
    context: click.Context,
    recipient: str | None,
    lease: int | None,
    cursor: str | None,
    from_start: bool,
    as_json: bool,
) -> None:
    """Show what arrives, as it arrives, until Ctrl-C.

    Each delivery comes once, in an order that never changes; with --cursor nothing is missed in between. It waits for a database that
    goes away.
    """
    if cursor is not None and from_start:
        raise click.UsageError("give --cursor or --from-start, not both")
    begin = "" if from_start else NOW if cursor is None else cursor
    logging.getLogger("pipehandler.store.stream").addHandler(_Stderr())
    threading.Thread(target=_leave_when_nobody_reads, daemon=True).start()
    with told(), hinted(READER):
        try:
            for delivery in follow(chosen_conninfo(context), begin, recipient=recipient, lease=lease):
                if as_json:
                    echo_json(delivery._asdict(), indent=None)
                else:
                    click.echo(_line(delivery))
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)


def _leave_when_nobody_reads() -> None:
    """`| head` goes when it has its lines; the next delivery, and with it the error of a write, may be far away."""
    stdout = select.poll()
    stdout.register(1, 0)  # nothing but errors
    stdout.poll()
    os._exit(1)  # as click after EPIPE


def _line(delivery: Delivery) -> str:
    sender = delivery.from_name or delivery.from_address or delivery.sender or "<>"
    subject = delivery.subject if delivery.state == "parsed" else "(not parsed)"
    return "  ".join(
        [local(delivery.received_at), cut(delivery.recipient, 60), cut(sender, 40), cut(subject or "", 100)]
    ).rstrip()
