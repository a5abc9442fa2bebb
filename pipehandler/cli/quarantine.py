"""`pipehandler quarantine list | show | export | drop`: messages that could not be parsed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pipehandler.cli.group import Group
from pipehandler.cli.terminal import block, human_size, say, say_all, shorten, table, terminal_columns
from pipehandler.mail.sysexits import EX_CANTCREAT
from pipehandler.store import quarantine as store_of
from pipehandler.store.connection import Store
from pipehandler.store.filters import Filters
from pipehandler.store.ids import NoSuchMessage
from pipehandler.store.messages import UnreadableMessage
from pipehandler.store.quarantine import FileDiffers

from .command import Failure, counted, echo_json, local, opened_store, quiet_option
from .filters import filtered
from .upkeep import confirm, confirmation, opened_for_upkeep, progress

_Row = TypeVar("_Row")

_WIDE = 72  # columns of a reason
_ENTRIES = ("MESSAGE", "RECEIVED", "SIZE", "RECIPIENTS", "REASON")
_REASONS = ("MESSAGES", "OLDEST", "NEWEST", "REASON")


@click.group("quarantine", cls=Group)
def quarantine() -> None:
    """Show, export or delete messages that could not be parsed; they are stored with their exact bytes."""


@quarantine.command("list")
@click.option("--reasons", is_flag=True, help="Count the messages by reason instead.")
@filtered("recipient", "sender", "subject", "since", "until")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=20,
    show_default=True,
    help="Maximum number of messages.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@click.pass_context
def list_(context: click.Context, /, reasons: bool, limit: int, as_json: bool, **filters: Any) -> None:
    """List the messages in quarantine, newest first."""
    selected = Filters(**filters)
    with opened_store(context) as store:
        if reasons:
            _list(_REASONS, store_of.reasons(store, selected), _reason, as_json)
        else:
            _list(_ENTRIES, store_of.messages(store, selected, limit), _entry, as_json)


@quarantine.command("show")
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")
@click.pass_context
def show(context: click.Context, name: str, as_json: bool) -> None:
    """Show why a message is in quarantine. ID is the number of a delivery or the UUID of a message."""
    with opened_store(context) as store:
        message = store_of.message(store, name)
        head = store_of.header_lines(store, message.id)
    if as_json:
        keys = ("id", "received_at", "size", "sha256", "error", "parser", "defects", "deliveries")
        echo_json({**{key: getattr(message, key) for key in keys}, "head": head})
        return
    lines = [
        f"Message:    {message.id}",
        f"Reason:     {shorten(message.error or '', 500)}",
        f"Parser:     {message.parser}",
        f"Size:       {message.size} octets, sha256 {message.sha256}",
    ]
    for delivery in message.deliveries:
        ends = f"from {delivery.sender or '<>'} to {delivery.recipient}"
        queue = f", queue id {delivery.queue_id} on {delivery.mail_host}" if delivery.queue_id else ""
        lines.append(shorten(f"Delivery:   {delivery.id} {ends}, {local(delivery.received_at)}{queue}", 2000))
    lines += ["Defect:     " + shorten(f"{defect['code']} {defect['detail']}", 100) for defect in message.defects]
    lines += ["", *(block("\n".join(line[:200] for line in head)) if head else ["(the bytes are no longer stored)"])]
    say_all(lines)


@quarantine.command("export")
@click.argument("names", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All messages in quarantine.")
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder for the files."
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object on each line, for programs.")
@click.pass_context
def export(
    context: click.Context, names: tuple[str, ...], everything: bool, folder: Path, quiet: bool, as_json: bool
) -> None:
    """Write an .eml file for each delivery: its envelope as Postfix would prepend it, then the exact bytes.

    `pipehandler import` reads these files. An existing file is not overwritten: with the same content it stays, with another the
    exit status is 73.
    """
    if bool(names) == everything:
        raise click.UsageError("give the ids of messages, or --all")
    with opened_store(context) as store:
        if everything:
            uuids = store_of.message_ids(store)
        else:
            uuids = list(dict.fromkeys(store_of.failed_id(store, name) for name in names))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with progress(lambda: len(uuids), enabled=not as_json) as bar:
                for uuid in uuids:
                    try:
                        for file in store_of.export(store, uuid, folder):
                            if as_json:
                                echo_json({**file._asdict(), "path": str(file.path), "message": uuid}, indent=None)
                            elif not quiet or not file.with_envelope:
                                bar.say(_exported(file))
                    except NoSuchMessage as error:  # its bytes expired, or it was dropped in the meantime
                        if not everything:
                            raise
                        say(str(error), err=True)
                    bar.advance()
        except (OSError, FileDiffers) as error:
            raise Failure(
                f"{folder}: {error.strerror}" if isinstance(error, OSError) else str(error), EX_CANTCREAT
            ) from error
    if not uuids:
        say("the quarantine is empty", err=as_json)


@quarantine.command("drop")
@click.argument("names", metavar="ID...", nargs=-1, required=True)
@click.option("-n", "--dry-run", is_flag=True, help="Delete nothing; show what would be deleted.")
@confirmation
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object on each line, for programs.")
@click.pass_context
def drop(context: click.Context, names: tuple[str, ...], dry_run: bool, yes: bool, quiet: bool, as_json: bool) -> None:
    """Delete messages in quarantine, with their bytes and deliveries, permanently."""
    with opened_for_upkeep(context) as store:
        uuids = list(dict.fromkeys(store_of.failed_id(store, name) for name in names))
        if dry_run or not yes:
            for uuid in uuids:
                say(_described(store, uuid), err=not dry_run or as_json)
        if not dry_run:
            confirm(f"Delete {counted(len(uuids), 'message')} permanently?", yes)
        with progress(lambda: len(uuids), enabled=not as_json) as bar:
            for uuid in uuids:
                deliveries = store_of.deliveries(store, uuid) if dry_run else store_of.drop(store, uuid)
                if as_json:
                    echo_json({"message": uuid, "deliveries": deliveries, "dry_run": dry_run}, indent=None)
                elif dry_run or not quiet:
                    verb = "would drop" if dry_run else "dropped"
                    bar.say(f"{verb} {uuid} with {counted(deliveries, 'delivery', 'deliveries')}")
                bar.advance()


def _described(store: Store, uuid: str) -> str:
    try:
        message = store_of.message(store, uuid)
    except UnreadableMessage as error:
        return str(error)
    recipients = _recipients([delivery.recipient for delivery in message.deliveries])
    return f"{uuid}  {message.size} octets  {recipients}  {shorten(message.error or '', _WIDE)}"


def _list(head: Sequence[str], rows: Sequence[_Row], cells: Callable[[_Row], list[object]], as_json: bool) -> None:
    if as_json:
        echo_json(rows)
    elif not rows:
        say("the quarantine is empty")
    else:
        say_all(table(head, [cells(row) for row in rows], _WIDE, terminal_columns()))


def _entry(entry: store_of.Entry) -> list[object]:
    return [entry.message, local(entry.received_at), human_size(entry.size), _recipients(entry.recipients), entry.error]


def _reason(reason: store_of.Reason) -> list[object]:
    return [reason.messages, local(reason.oldest), local(reason.newest), reason.error]


def _recipients(recipients: list[str]) -> str:
    """Return the first recipients of a message as text."""
    more = f" and {len(recipients) - 2} more" if len(recipients) > 2 else ""
    return shorten(", ".join(recipients[:2]), 60) + more


def _exported(file: store_of.Exported) -> str:
    line = f"{file.path}" if file.written else f"{file.path} exists already, with the same content"
    if not file.with_envelope:
        line += ": its envelope cannot be written as fields; import it with --recipient and --sender"
    return shorten(line, 4000)
