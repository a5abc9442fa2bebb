"""`pipehandler expire`: remove expired mail."""

import signal
import sys
import time
from collections import Counter
from types import FrameType

import click

from pipehandler.cli.terminal import say
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
    SKIPPED,
    WAITING,
    Counts,
)

from .command import Failure, echo_json, reported_errors
from .upkeep import INTERRUPTED, opened_for_upkeep, progress

_NOUNS = {
    DELIVERIES: ("delivery", "deliveries"),
    MESSAGES: ("message", "messages"),
    RAW_MESSAGES: ("message's bytes", "messages' bytes"),
    ATTACHMENTS: ("attachment's content", "attachments' contents"),
    LEASES: ("lease", "leases"),
}


@click.command("expire")
@click.option(
    "--every", type=click.IntRange(1, 86_400), metavar="SECONDS", help="Repeat at this interval until it is stopped."
)
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing; count what would be removed now.")
@click.option(
    "--batch", type=click.IntRange(1, 100_000), default=BATCH, show_default=True, help="Deliveries per transaction."
)
@click.option("--json", "as_json", is_flag=True, help="The counts as a JSON object, for programs; one for each run.")
@click.pass_context
def expire(context: click.Context, every: int | None, dry_run: bool, batch: int, as_json: bool) -> None:
    """Remove mail that has expired: by the rules of retention in the configuration, or with the lease of its address.

    It works in short transactions and can be interrupted at any time; the next run continues. Expired mail is hidden even before
    it is removed.
    """
    if dry_run:
        if every:
            raise click.UsageError("--every and --dry-run exclude each other")
        with reported_errors():
            rules = load(context.obj["config"]).retention
        with opened_for_upkeep(context) as store:
            _show(expiry.due(store, rules), as_json, dry_run=True)
    elif every:
        _repeat(context, every, batch, as_json)
    else:
        total: Counts = Counter()
        try:
            _once(context, batch, total)
        except KeyboardInterrupt:
            _show(total, as_json)
            raise Failure("interrupted; the next run continues", INTERRUPTED) from None
        _show(total, as_json)


def _once(context: click.Context, batch: int, total: Counts) -> None:
    """Run once, with the current configuration, and add what was removed to `total`."""
    with reported_errors():
        rules = load(context.obj["config"]).retention
    with opened_for_upkeep(context) as store:

        def length() -> int:
            counts = expiry.due(store, rules)
            return counts[DELIVERIES] + counts[RAW_MESSAGES] + counts[ATTACHMENTS] + counts[LEASES]

        with progress(length) as bar:
            for counts in expiry.expire(store, rules, batch, _report):
                total.update(counts)
                bar.advance(counts[DELIVERIES] + counts[RAW_MESSAGES] + counts[ATTACHMENTS] + counts[LEASES])


def _repeat(context: click.Context, every: int, batch: int, as_json: bool) -> None:
    """Run until SIGTERM or Ctrl-C; report whatever fails, and try again."""
    with reported_errors():
        load(context.obj["config"])
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while True:
            started = time.monotonic()
            total: Counts = Counter()
            try:
                _once(context, batch, total)
            except click.ClickException as error:
                say(f"{error.format_message()}; trying again in {every} s", err=True)
            if any(total.values()):
                _show(total, as_json)
                sys.stdout.flush()
            time.sleep(max(0.0, started + every - time.monotonic()))
    except KeyboardInterrupt:
        return


def _report(delivery: int) -> None:
    say(
        f"delivery {delivery} was skipped: it cannot be changed or removed; the log of PostgreSQL has the reason",
        err=True,
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show(counts: Counts, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        names = (*_NOUNS, APPLIED, CHANGED, SKIPPED, WAITING)
        echo_json({**{name: counts[name] for name in names}, "dry_run": dry_run}, indent=None)
    else:
        say(_summary(counts, dry_run))


def _summary(counts: Counts, dry_run: bool = False) -> str:
    """Return one line about what was removed, or would be."""
    parts = [f"{counts[name]} {nouns[counts[name] != 1]}" for name, nouns in _NOUNS.items() if counts[name]]
    text = f"{'would remove' if dry_run else 'removed'} {', '.join(parts) if parts else 'nothing'}"
    if counts[CHANGED] or counts[APPLIED]:
        text += (
            f"; the rules have changed: {'would update' if dry_run else 'updated'} the expiry of"
            f" {counts[CHANGED]} {'delivery' if counts[CHANGED] == 1 else 'deliveries'}"
        )
    if counts[SKIPPED]:
        text += f"; skipped {counts[SKIPPED]} {'delivery' if counts[SKIPPED] == 1 else 'deliveries'}"
    if counts[WAITING]:
        text += "; the rules have changed, and the next run applies them: an older transaction is still running"
    return text
