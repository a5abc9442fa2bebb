"""`pipehandler follow`: show mail as it arrives."""

import os
import select
import threading

import click

from pipehandler.cli.terminal import say, shorten
from pipehandler.store.filters import is_address
from pipehandler.store.roles import READER
from pipehandler.store.stream import NOW, Delivery, follow

from .command import chosen_conninfo, echo_json, local, reported_errors
from .upkeep import INTERRUPTED, hinted


def _address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is only a part of an address, or a pattern: no delivery would ever be shown."""
    if value is not None and not is_address(value):
        raise click.BadParameter(f"{value!r} is not a whole address; `pipehandler list` takes patterns")
    return value


@click.command("follow")
@click.option("--recipient", metavar="ADDRESS", callback=_address, help="Only mail to this address.")
@click.option("--lease", type=click.IntRange(min=1), help="Only mail that belongs to this lease.")
@click.option("--cursor", help="Continue after the delivery with this cursor.")
@click.option("--from-start", is_flag=True, help="Begin with the first stored delivery.")
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
    """Show mail as it arrives, until Ctrl-C.

    Each delivery is shown once, in an order that never changes; with --cursor, none is missed between two runs. If the database goes
    away, the command waits for it.
    """
    if cursor is not None and from_start:
        raise click.UsageError("--cursor and --from-start exclude each other")
    begin = "" if from_start else NOW if cursor is None else cursor
    threading.Thread(target=_exit_when_stdout_closes, daemon=True).start()
    with reported_errors(), hinted(READER):
        try:
            for delivery in follow(chosen_conninfo(context), begin, recipient=recipient, lease=lease):
                if as_json:
                    echo_json(delivery._asdict(), indent=None)
                else:
                    say(_line(delivery))
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)


def _exit_when_stdout_closes() -> None:
    """Exit when the reader of a pipe, such as `head`, has gone; the next write, and so its error, may be hours away."""
    stdout = select.poll()
    stdout.register(1, 0)  # errors only
    stdout.poll()
    os._exit(1)  # as click after EPIPE


def _line(delivery: Delivery) -> str:
    sender = delivery.from_name or delivery.from_address or delivery.sender or "<>"
    subject = delivery.subject if delivery.state == "parsed" else "(not parsed)"
    return "  ".join(
        [local(delivery.received_at), shorten(delivery.recipient, 60), shorten(sender, 40), shorten(subject or "", 100)]
    ).rstrip()
