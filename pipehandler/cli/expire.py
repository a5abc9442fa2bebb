"""`pipehandler expire`: remove what has expired."""

import signal
import sys
import time
from collections import Counter
from types import FrameType

import click

from pipehandler.settings.config import load
from pipehandler.store import expiry
from pipehandler.store.expiry import (
    APPLIED,
    ATTACHMENTS,
    BATCH,
    CHANGED,
    DELIVERIES,
    LEASES,
    MESSAGES,
    RAW_MESSAGES,
    WAITING,
    Counts,
)

from .command import Failure, told
from .upkeep import INTERRUPTED, opened_for_upkeep, progress

_WORDS = {
    DELIVERIES: ("delivery", "deliveries"),
    MESSAGES: ("message", "messages"),
    RAW_MESSAGES: ("message's bytes", "messages' bytes"),
    ATTACHMENTS: ("attachment's content", "attachments' contents"),
    LEASES: ("lease", "leases"),
}


@click.command("expire")
@click.option(
    "--every", type=click.IntRange(1, 86_400), metavar="SECONDS", help="Again and again, so often, until it is ended."
)
@click.option("--dry-run", is_flag=True, help="Change nothing, and count what would go now.")
@click.option(
    "--batch", type=click.IntRange(1, 100_000), default=BATCH, show_default=True, help="Deliveries in one transaction."
)
@click.pass_context
def expire(context: click.Context, every: int | None, dry_run: bool, batch: int) -> None:
    """Remove what has expired: by the rules of retention in the configuration, and with the lease of its address.

    It works in short transactions and can be interrupted at any time; the next run goes on. Nobody sees what has expired, whether or not
    it was removed.
    """
    if dry_run:
        if every:
            raise click.UsageError("give --every or --dry-run, not both")
        with told():
            rules = load(context.obj["config"]).retention
        with opened_for_upkeep(context) as store:
            click.echo(_said(expiry.due(store, rules), dry_run=True))
    elif every:
        _again_and_again(context, every, batch)
    else:
        total: Counts = Counter()
        try:
            _once(context, batch, total)
        except KeyboardInterrupt:
            click.echo(_said(total))
            raise Failure("interrupted; the next run goes on", INTERRUPTED) from None
        click.echo(_said(total))


def _once(context: click.Context, batch: int, total: Counts) -> None:
    """One run, with the configuration as it is now; what it did is added to `total`."""
    with told():
        rules = load(context.obj["config"]).retention
    with opened_for_upkeep(context) as store:

        def length() -> int:
            counts = expiry.due(store, rules)
            return counts[DELIVERIES] + counts[RAW_MESSAGES] + counts[ATTACHMENTS] + counts[LEASES]

        with progress(length) as bar:
            for counts in expiry.expire(store, rules, batch):
                total.update(counts)
                bar.advance(counts[DELIVERIES] + counts[RAW_MESSAGES] + counts[ATTACHMENTS] + counts[LEASES])


def _again_and_again(context: click.Context, every: int, batch: int) -> None:
    """Run until SIGTERM or Ctrl-C; whatever fails is said, and tried again."""
    with told():
        load(context.obj["config"])
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while True:
            begun = time.monotonic()
            total: Counts = Counter()
            try:
                _once(context, batch, total)
            except click.ClickException as error:
                click.echo(f"{error.format_message()}; trying again in {every} s", err=True)
            if any(total.values()):
                click.echo(_said(total))
                sys.stdout.flush()
            time.sleep(max(0.0, begun + every - time.monotonic()))
    except KeyboardInterrupt:
        return


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _said(counts: Counts, dry_run: bool = False) -> str:
    """What was done, or would be, in one line."""
    parts = [f"{counts[name]} {words[counts[name] != 1]}" for name, words in _WORDS.items() if counts[name]]
    text = f"{'would remove' if dry_run else 'removed'} {', '.join(parts) if parts else 'nothing'}"
    if counts[CHANGED] or counts[APPLIED]:
        text += (
            f"; the rules changed, and {'would give' if dry_run else 'gave'} {counts[CHANGED]} deliveries another time"
        )
    if counts[WAITING]:
        text += "; the rules changed, and the next run applies them: a transaction from before goes on"
    return text
