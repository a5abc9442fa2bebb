"""`pipehandler remove`: delete stored mail for good."""

from collections import Counter
from typing import Any

import click

from pipehandler.cli.terminal import say, shorten
from pipehandler.store import removal
from pipehandler.store.filters import Filters
from pipehandler.store.ids import delivery_ids
from pipehandler.store.removal import Selection

from .command import Failure, counted, echo_json, quiet_option
from .filters import filtered
from .upkeep import INTERRUPTED, confirm, confirmation, opened_for_upkeep, progress


@click.command("remove")
@click.argument("names", metavar="[ID]...", nargs=-1)
@filtered()
@click.option("-n", "--dry-run", is_flag=True, help="Remove nothing; count what would be removed.")
@confirmation
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="What was removed as a JSON object, for programs.")
@click.pass_context
def remove(
    context: click.Context,
    /,
    names: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Delete mail permanently: the deliveries with these IDs, or those that all of the options select.

    A number is one delivery, a UUID all deliveries of a message. A message goes with its last delivery, and its bytes and
    attachments with it. Mail that has expired is removed as well. The count is shown first. What Postfix still has in its
    queue, or delivers again, is stored again.
    """
    given = any(value is not None for value in filters.values())
    if bool(names) == given:
        raise click.UsageError("give the ids of mail, or options that select it, such as --recipient")
    removed: Counter[str] = Counter()
    with opened_for_upkeep(context) as store:
        if names:
            ids = [number for name in names for number in delivery_ids(store, name)]
            selected = Filters(ids=list(dict.fromkeys(ids)))
        else:
            selected = Filters(**filters)
        found = removal.selection(store, selected)
        if dry_run or found.last is None:
            _show({"deliveries": found.deliveries, "messages": found.messages}, as_json, dry_run)
            return
        confirm(f"Permanently remove {_what(found)}?", yes)
        try:
            with progress(lambda: found.deliveries, enabled=not as_json) as bar:
                for batch in removal.remove(store, selected, found.last):
                    removed.update(batch._asdict())
                    bar.advance(batch.deliveries)
        except KeyboardInterrupt:
            _show(removed, as_json)
            raise Failure("interrupted; run it again to continue", INTERRUPTED) from None
    if as_json or not quiet:
        _show(removed, as_json)


def _what(found: Selection) -> str:
    """Return what was found in one line."""
    more = f" and {found.recipients - len(found.examples)} more" if found.recipients > len(found.examples) else ""
    recipients = ", ".join(shorten(recipient, 100) for recipient in found.examples)
    return f"{_counts(found.deliveries, found.messages)}, to {recipients}{more}"


def _counts(deliveries: int, messages: int) -> str:
    return f"{counted(deliveries, 'delivery', 'deliveries')}, {counted(messages, 'message')}"


def _show(counts: dict[str, int], as_json: bool, dry_run: bool = False) -> None:
    deliveries, messages = counts.get("deliveries", 0), counts.get("messages", 0)
    if as_json:
        echo_json({"deliveries": deliveries, "messages": messages, "dry_run": dry_run})
    elif not deliveries:
        say("nothing found")
    else:
        say(f"{'would remove' if dry_run else 'removed'} {_counts(deliveries, messages)}")
