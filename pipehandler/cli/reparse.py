"""`pipehandler reparse`: parse stored messages again."""

import json
from collections import Counter
from typing import Any
from uuid import UUID

import click

from pipehandler.cli.terminal import say, shorten
from pipehandler.delivery import fingerprints as deliveries
from pipehandler.delivery import reparse as core
from pipehandler.delivery.reparse import ALL, FAILED, KEPT, OLDER, STILL_FAILED, Reparsed
from pipehandler.mail.sysexits import EX_OSERR
from pipehandler.settings.config_file import load
from pipehandler.store.errors import StoreError
from pipehandler.store.ids import message_id

from .command import Failure, echo_json, quiet_option, reported_errors
from .upkeep import INTERRUPTED, Progress, opened_for_upkeep, progress

_WIDE = 60  # columns of a value


@click.command("reparse")
@click.argument("names", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All messages.")
@click.option("--older", is_flag=True, help="Messages that another version of the parser has parsed.")
@click.option(
    "--fingerprints",
    is_flag=True,
    help="Parse nothing; renew the fingerprints of deliveries that a release before 0.2 has stored.",
)
@click.option(
    "--after", type=click.UUID, help="Continue after this message; messages are parsed in the order of their UUIDs."
)
@click.option("-n", "--dry-run", is_flag=True, help="Change nothing; show what would change.")
@click.option("-v", "--verbose", is_flag=True, help="Show what changed.")
@quiet_option
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on each line, for programs; the last is the summary."
)
@click.pass_context
def reparse(
    context: click.Context,
    names: tuple[str, ...],
    everything: bool,
    older: bool,
    fingerprints: bool,
    after: UUID | None,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Parse stored messages again: those with these IDs, or else those in quarantine.

    Each message is a separate transaction, and its bytes are never changed. The command can be interrupted at any time; a later run
    continues. A message that was parsed before and cannot be parsed now stays as it is.
    """
    if fingerprints:
        if names or everything or older or after or dry_run or verbose:
            raise click.UsageError(
                "--fingerprints stands alone or with --json: it renews all fingerprints of version 1"
            )
        _renew_fingerprints(context, quiet, as_json)
        return
    if bool(names) + everything + older > 1 or (names and after):
        raise click.UsageError("give the ids of messages, or --all, or --older; --after is for a run without ids")
    which = ALL if everything else OLDER if older else FAILED
    count = _Count(dry_run, quiet and not verbose, as_json)
    with reported_errors():
        config = load(context.obj["config"])
    with opened_for_upkeep(context) as store:
        if names:
            messages = iter(list(dict.fromkeys(message_id(store, name) for name in names)))
        else:
            messages = core.chosen(store, which, str(after) if after else None)

        def length() -> int:
            return len(names) or core.count(store, which, str(after) if after else None)

        try:
            with progress(length, enabled=not as_json) as bar:
                for message in messages:
                    reparsed = core.reparse(store, config, message, dry_run)
                    count.add(reparsed)
                    if as_json or verbose or (dry_run and not quiet):
                        _show(reparsed, bar, as_json, dry_run)
                    bar.advance()
        except KeyboardInterrupt:
            count.show()
            raise Failure(f"interrupted; {_how_to_continue(which, count.last, bool(names))}", INTERRUPTED) from None
        except StoreError:
            count.show()
            say(_how_to_continue(which, count.last, bool(names)), err=True)
            raise
        except (OSError, ImportError, LookupError) as error:
            raise Failure(f"this host cannot parse: {error!r}", EX_OSERR) from error
    count.show()


def _renew_fingerprints(context: click.Context, quiet: bool, as_json: bool) -> None:
    """Renew the fingerprints that have those of version 1."""
    renewed = 0

    def show() -> None:
        if as_json:
            echo_json({"summary": {"renewed": renewed}}, indent=None)
        elif not quiet:
            say(f"{renewed} fingerprints renewed")

    with reported_errors(), opened_for_upkeep(context) as store:
        try:
            with progress(lambda: deliveries.count(store), enabled=not as_json) as bar:
                for delivery in deliveries.outdated(store):
                    renewed += deliveries.renew(store, delivery)
                    bar.advance()
        except KeyboardInterrupt:
            show()
            raise Failure("interrupted; run it again to continue", INTERRUPTED) from None
        except StoreError:
            show()
            raise
    show()


class _Count:
    """The results of one run, added up."""

    def __init__(self, dry_run: bool, quiet: bool, as_json: bool) -> None:
        self.dry_run, self.quiet, self.as_json = dry_run, quiet, as_json
        self.last = ""
        self.changed = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()

    def add(self, reparsed: Reparsed) -> None:
        """Count one message."""
        self.last = reparsed.message
        self.changed += reparsed.changed
        self.outcomes[reparsed.how] += 1
        if reparsed.reason:
            self.reasons[reparsed.how, reparsed.reason] += 1

    def show(self) -> None:
        """Print the summary."""
        if self.as_json:
            summary = {
                "tried": self.outcomes.total(),
                "changed": self.changed,
                "outcomes": dict(self.outcomes),
                "reasons": {outcome: dict(self._reasons_of(outcome)) for outcome in (STILL_FAILED, KEPT)},
            }
            echo_json({"summary": summary, "last": self.last or None, "dry_run": self.dry_run}, indent=None)
            return
        if self.quiet and not self.outcomes[STILL_FAILED] and not self.outcomes[KEPT]:
            return
        parts = [f"{self.outcomes.total()} tried", f"{self.changed} {'would change' if self.dry_run else 'changed'}"]
        say(", ".join(parts + [f"{number} {outcome}" for outcome, number in self.outcomes.items()]))
        for outcome in (STILL_FAILED, KEPT):
            for reason, number in self._reasons_of(outcome):
                say(f"  {number} {outcome}: {shorten(reason, 200)}")
        if self.outcomes[STILL_FAILED] and not self.dry_run:
            say("The next run tries the failed messages again; `pipehandler quarantine list` shows them.")

    def _reasons_of(self, outcome: str) -> list[tuple[str, int]]:
        return [(reason, number) for (name, reason), number in self.reasons.most_common() if name == outcome]


def _show(reparsed: Reparsed, bar: Progress, as_json: bool, dry_run: bool) -> None:
    """Print one message with what changed, or would change."""
    if as_json:
        changes = {change.name: [change.before, change.after] for change in reparsed.changes}
        reason = reparsed.reason or None
        line = {"message": reparsed.message, "outcome": reparsed.how, "reason": reason, "changes": changes}
        echo_json(line, indent=None)
        return
    suffix = f": {reparsed.reason}" if reparsed.reason else ""
    bar.say(shorten(f"{reparsed.message}: {'would be ' if dry_run else ''}{reparsed.how}{suffix}", 200))
    for change in reparsed.changes:
        before, after = _differing(change.before, change.after)
        bar.say(f"  {change.name}: {before} -> {after}")


def _differing(before: Any, after: Any) -> tuple[str, str]:
    """Return two values as text for one line, from the point where they begin to differ."""
    texts = [json.dumps(value, ensure_ascii=False) for value in (before, after)]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((index for index, (old, new) in pairs if old != new), min(map(len, texts)))
    if same > _WIDE // 2:
        texts = ["…" + text[same - 10 :] for text in texts]
    return shorten(texts[0], _WIDE), shorten(texts[1], _WIDE)


def _how_to_continue(which: str, last: str, named: bool) -> str:
    """Return how to continue after an interruption."""
    if named or not last:
        return "run it again to continue"
    option = {FAILED: "", OLDER: " --older", ALL: " --all"}[which]
    return f"to continue: pipehandler reparse{option} --after {last}"
