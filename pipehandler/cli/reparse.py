"""`pipehandler reparse`: read again what is stored."""

import json
from collections import Counter
from typing import Any
from uuid import UUID

import click

from pipehandler.cli.terminal import UNSAFE, cut
from pipehandler.delivery import reparse as core
from pipehandler.delivery.reparse import ALL, FAILED, KEPT, OLDER, STILL_FAILED, Reparsed
from pipehandler.mail.sysexits import EX_OSERR
from pipehandler.settings.config import load
from pipehandler.store import mailbox
from pipehandler.store.errors import StoreError

from .command import Failure, told
from .upkeep import INTERRUPTED, Progress, opened_for_upkeep, progress

_WIDE = 60  # columns of a value


@click.command("reparse")
@click.argument("names", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All messages.")
@click.option("--older", is_flag=True, help="Those that another version of the parser has read.")
@click.option("--after", type=click.UUID, help="Go on behind this message; they come in the order of their UUIDs.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and show what would change.")
@click.option("--verbose", is_flag=True, help="Show what changed.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on each line, for programs; the last is the summary."
)
@click.pass_context
def reparse(
    context: click.Context,
    names: tuple[str, ...],
    everything: bool,
    older: bool,
    after: UUID | None,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Parse again what is stored: the messages with these IDs, else those in quarantine.

    Each message is a transaction of its own, and its bytes are never touched. It can be interrupted at any time; a later run goes
    on. What is parsed already and cannot be parsed now stays as it is.
    """
    if bool(names) + everything + older > 1 or (names and after):
        raise click.UsageError("give the ids of messages, or --all, or --older; --after is for a run without ids")
    which = ALL if everything else OLDER if older else FAILED
    count = _Count(dry_run, as_json)
    with told():
        config = load(context.obj["config"])
    with opened_for_upkeep(context) as store:
        if names:
            found = iter(list(dict.fromkeys(mailbox.message(store, name).id for name in names)))
        else:
            found = core.chosen(store, which, str(after) if after else None)

        def length() -> int:
            return len(names) or core.count(store, which, str(after) if after else None)

        try:
            with progress(length, wanted=not as_json) as bar:
                for each in found:
                    one = core.reparse(store, config, each, dry_run)
                    count.add(one)
                    if as_json or dry_run or verbose:
                        _show(one, bar, as_json, dry_run)
                    bar.advance()
        except KeyboardInterrupt:
            count.show()
            raise Failure(f"interrupted; {_goes_on(which, count.last, bool(names))}", INTERRUPTED) from None
        except StoreError:
            count.show()
            click.echo(_goes_on(which, count.last, bool(names)), err=True)
            raise
        except (OSError, ImportError, LookupError) as error:
            raise Failure(f"this host cannot parse: {error!r}", EX_OSERR) from error
    count.show()


class _Count:
    """What a run of `reparse` came to."""

    def __init__(self, dry_run: bool, as_json: bool) -> None:
        self.dry_run = dry_run
        self.as_json = as_json
        self.last = ""
        self.changed = 0
        self.how: Counter[str] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()

    def add(self, one: Reparsed) -> None:
        self.last = one.message
        self.changed += one.changed
        self.how[one.how] += 1
        if one.reason:
            self.reasons[one.how, one.reason] += 1

    def show(self) -> None:
        if self.as_json:
            reasons = {how: dict(self._of(how)) for how in (STILL_FAILED, KEPT)}
            summary = {
                "tried": self.how.total(),
                "changed": self.changed,
                "outcomes": dict(self.how),
                "reasons": reasons,
            }
            _echo_line({"summary": summary, "last": self.last or None, "dry_run": self.dry_run})
            return
        parts = [f"{self.how.total()} tried", f"{self.changed} {'would change' if self.dry_run else 'changed'}"]
        click.echo(", ".join(parts + [f"{number} {how}" for how, number in self.how.items()]))
        for how in (STILL_FAILED, KEPT):
            for reason, number in self._of(how):
                click.echo(f"  {number} {how}: {cut(reason, 200)}")
        if self.how[STILL_FAILED] and not self.dry_run:
            click.echo("The next run tries again what is still not parsed; `pipehandler quarantine list` shows it.")

    def _of(self, how: str) -> list[tuple[str, int]]:
        return [(reason, number) for (each, reason), number in self.reasons.most_common() if each == how]


def _show(one: Reparsed, bar: Progress, as_json: bool, dry_run: bool) -> None:
    """One message with what changed, or would change."""
    if as_json:
        changes = {change.name: [change.before, change.after] for change in one.changes}
        _echo_line({"message": one.message, "outcome": one.how, "reason": one.reason or None, "changes": changes})
        return
    reason = f": {one.reason}" if one.reason else ""
    bar.say(cut(f"{one.message}: {'would be ' if dry_run else ''}{one.how}{reason}", 200))
    for change in one.changes:
        before, after = _differing(change.before, change.after)
        bar.say(f"  {change.name}: {before} -> {after}")


def _differing(before: Any, after: Any) -> tuple[str, str]:
    """Two values for one line, from where they begin to differ."""
    texts = [json.dumps(value, ensure_ascii=False) for value in (before, after)]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), min(map(len, texts)))
    if same > _WIDE // 2:
        texts = ["…" + text[same - 10 :] for text in texts]
    return cut(texts[0], _WIDE), cut(texts[1], _WIDE)


def _goes_on(which: str, last: str, named: bool) -> str:
    """How to go on after an interruption."""
    if named or not last:
        return "run it again to go on"
    option = {FAILED: "", OLDER: " --older", ALL: " --all"}[which]
    return f"to go on: pipehandler reparse{option} --after {last}"


def _echo_line(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    click.echo(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
