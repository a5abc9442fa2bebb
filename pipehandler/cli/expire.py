"""`pipehandler expire`: remove expired mail."""

import signal
import sys
import time
from collections import Counter
from types import FrameType

import click

from pipehandler.cli.terminal import say
from pipehandler.mail.sysexits import EX_TEMPFAIL, EX_UNAVAILABLE
from pipehandler.settings.config import Config
from pipehandler.settings.config_file import load
from pipehandler.store import expiry
from pipehandler.store.connection import Store
from pipehandler.store.due import due
from pipehandler.store.expiry import (
    APPLIED,
    ATTACHMENTS,
    BATCH,
    CHANGED,
    DAYS,
    DELIVERIES,
    HELD,
    LEASES,
    MESSAGES,
    RAW_MESSAGES,
    SKIPPED,
    STORED,
    WAITING,
    Counts,
)
from pipehandler.store.web_domains import configured, set_domains

from .command import Failure, echo_json, quiet_option, reported_errors
from .parts import on_each, opened_parts
from .upkeep import INTERRUPTED, progress

FAILED = "failed"
"""Shards that could not be reached, or failed."""

_NOUNS = {
    DAYS: ("whole day", "whole days"),
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
    "--confirm",
    "confirmed",
    is_flag=True,
    help="Let changed rules apply, however much they remove (expire.max_change_percent).",
)
@click.option(
    "--batch", type=click.IntRange(1, 100_000), default=BATCH, show_default=True, help="Deliveries per transaction."
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="The counts as a JSON object, for programs; one for each run.")
@click.pass_context
def expire(
    context: click.Context,
    every: int | None,
    dry_run: bool,
    confirmed: bool,
    batch: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Remove mail that has expired: by the rules of retention in the configuration, or with the lease of its address.

    It works in short transactions and can be interrupted at any time; the next run continues. Expired mail is hidden even before
    it is removed. Of several shards, each is done; one that fails is reported, and the exit status is 69. Changed rules that
    would remove much of what is stored wait for --confirm; then the exit status is 75, and the rules before them stay in force.
    The domains of the inbox page are copied to the database as well.
    """
    if every and (dry_run or confirmed):
        raise click.UsageError("--every excludes --dry-run and --confirm")
    if every:
        _repeat(context, every, batch, quiet, as_json)
        return
    total: Counts = Counter()
    if dry_run:
        config = _config(context)
        max_percent = _max_percent(config, confirmed)
        with opened_parts(context) as parts:
            attention = on_each(parts, lambda store: total.update(due(store, config.retention, max_percent)))
        total[FAILED] = len(attention)
    else:
        try:
            attention = _once(context, batch, total, confirmed)
        except KeyboardInterrupt:
            _show(total, as_json)
            raise Failure("interrupted; the next run continues", INTERRUPTED) from None
    for line in attention:
        say(line, err=True)
    if not _is_left_out(total, quiet, as_json):
        _show(total, as_json, dry_run)
    if total[HELD]:
        say(_held(total), err=True)
    if total[FAILED] or total[HELD]:
        context.exit(EX_UNAVAILABLE if total[FAILED] else EX_TEMPFAIL)


def _config(context: click.Context) -> Config:
    with reported_errors():
        return load(context.obj["config"])


def _max_percent(config: Config, confirmed: bool) -> int:
    """Return how many percent of the deliveries a change of the rules may concern."""
    return 100 if confirmed else config.expire.max_change_percent


def _once(context: click.Context, batch: int, total: Counts, confirmed: bool = False) -> list[str]:
    """Run once, with the current configuration, and add what was removed to `total`.

    Returns what needs attention: shards that failed, and domains of the inbox page whose addresses it cannot give out.
    """
    config = _config(context)
    rules, max_percent = config.retention, _max_percent(config, confirmed)
    refused: list[str] = []

    def work(store: Store) -> None:
        refused.extend(set_domains(store, configured(config)).refused)

        def length() -> int:
            counts = due(store, rules, max_percent)
            return counts[DELIVERIES] + counts[RAW_MESSAGES] + counts[ATTACHMENTS] + counts[LEASES]

        with progress(length) as bar:
            for counts in expiry.expire(store, rules, batch, _report, max_percent):
                total.update(counts)
                bar.advance(counts[DELIVERIES] + counts[RAW_MESSAGES] + counts[ATTACHMENTS] + counts[LEASES])

    with opened_parts(context) as parts:
        failed = on_each(parts, work)
    total[FAILED] = len(failed)
    return [*failed, *([_refused(refused)] if refused else [])]


def _repeat(context: click.Context, every: int, batch: int, quiet: bool, as_json: bool) -> None:
    """Run until SIGTERM or Ctrl-C; report whatever fails, and try again."""
    _config(context)
    signal.signal(signal.SIGTERM, _interrupt)
    if not quiet:
        say(f"removing expired mail every {every} s", err=True)
    reported = ""
    known: list[str] = []
    try:
        while True:
            started = time.monotonic()
            total: Counts = Counter()
            try:
                attention = _once(context, batch, total)
                for line in attention:
                    if line not in known:
                        say(line, err=True)
                known = attention
            except click.ClickException as error:
                say(f"{error.format_message()}; trying again in {every} s", err=True)
            done = any(count for name, count in total.items() if name not in (HELD, STORED, FAILED))
            if done and not _is_left_out(total, quiet, as_json):
                _show(total, as_json)
                sys.stdout.flush()
            if (held := _held(total)) != reported:
                reported = held
                say(held or "the rules that waited for --confirm do not wait any more", err=True)
            time.sleep(max(0.0, started + every - time.monotonic()))
    except KeyboardInterrupt:
        return


def _is_left_out(counts: Counts, quiet: bool, as_json: bool) -> bool:
    """Return whether --quiet leaves out a run: nothing was skipped in it."""
    return quiet and not as_json and not counts[SKIPPED]


def _report(delivery: int) -> None:
    say(
        f"delivery {delivery} was skipped: it cannot be changed or removed; the log of PostgreSQL has the reason",
        err=True,
    )


def _refused(domains: list[str]) -> str:
    """Return what to do about domains of the inbox page that have a catch-all."""
    return (
        f"visitors of the inbox page get no addresses of {', '.join(domains)}: a catch-all (@DOMAIN) has a lease there; expire"
        " it with `pipehandler address expire`, or remove the domain from web.domains"
    )


def _held(counts: Counts) -> str:
    """Return what to do about rules that wait, "" if none do."""
    if not counts[HELD]:
        return ""
    return (
        f"the rules have changed, and do not apply yet: they would remove mail, bytes or attachments of {counts[HELD]} of"
        f" {counts[STORED]} deliveries within a day, more than expire.max_change_percent allows; correct them, or let them"
        " apply with `pipehandler expire --confirm`"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show(counts: Counts, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        names = (*_NOUNS, APPLIED, CHANGED, SKIPPED, WAITING, HELD, STORED, FAILED)
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
