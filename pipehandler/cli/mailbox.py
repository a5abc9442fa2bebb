"""Commands that show stored mail: `list`, `show`, `raw`, `attachment`."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click

from pipehandler.cli.terminal import block, human_size, page, say, say_all, shorten, table, terminal_columns
from pipehandler.store import listing, messages
from pipehandler.store.filters import Filters
from pipehandler.store.rows import Mailboxes, Message, Report

from .command import echo_json, local, opened_store, replace_file
from .filters import filtered

_WIDE = 2_000  # columns of a field of the message
_RECIPIENTS = 10  # of a report that are shown


@click.command("list")
@filtered()
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=20,
    show_default=True,
    help="Maximum number of deliveries.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@click.pass_context
def list_(context: click.Context, /, limit: int, as_json: bool, **filters: Any) -> None:
    """List deliveries, newest first."""
    with opened_store(context) as store:
        rows = listing.deliveries(store, Filters(**filters), limit)
    if as_json:
        echo_json(rows)
    elif not rows:
        say("nothing found")
    else:
        say_all(
            table(
                ["ID", "RECEIVED", "RECIPIENT", "FROM", "SUBJECT", "SIZE", "FILES", "STATE", "PREVIEW"],
                [
                    [
                        row.id,
                        local(row.received_at),
                        row.recipient,
                        row.from_name or row.from_address or row.sender,
                        row.subject,
                        human_size(row.size),
                        row.attachments,
                        row.state,
                        row.preview,
                    ]
                    for row in rows
                ],
                columns=terminal_columns(),
            )
        )


@click.command("show")
@click.argument("name", metavar="ID")
@click.option("--header", is_flag=True, help="All header fields.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")
@click.pass_context
def show(context: click.Context, name: str, header: bool, as_json: bool) -> None:
    """Show one message. ID is the number of a delivery or the UUID of a message."""
    with opened_store(context) as store:
        message = messages.message(store, name)
    if as_json:
        echo_json(message)
        return
    page(_described(message, header))


_output = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
    help="Write to this file instead of stdout; it appears when it is complete.",
)


@click.command("raw")
@click.argument("name", metavar="ID")
@_output
@click.pass_context
def raw(context: click.Context, name: str, output: str) -> None:
    """Write the exact bytes of a message to stdout or to a file."""
    with opened_store(context) as store:
        _write(output, messages.raw(store, name))


@click.command("attachment")
@click.argument("name", metavar="ID")
@click.argument("number", type=click.IntRange(min=1))
@_output
@click.pass_context
def attachment(context: click.Context, name: str, number: int, output: str) -> None:
    """Write the content of attachment NUMBER of a message to stdout or to a file."""
    with opened_store(context) as store:
        _write(output, messages.attachment(store, name, number))


def _described(message: Message, header: bool) -> Iterator[str]:
    """Yield a message as lines of text."""
    fields = {
        "Message": message.id,
        "Subject": message.subject,
        "From": _addresses(message.from_list),
        "To": _addresses(message.to_list),
        "Cc": _addresses(message.cc_list),
        "Reply-To": _addresses(message.reply_to_list),
        "Date": _sent(message.date, message.date_offset),
        "Message-ID": message.message_id,
        "List-Id": message.list_id,
        "Unsubscribe": _unsubscribe(message),
        "Automatic": ", ".join(filter(None, [message.auto_submitted, message.precedence])),
        "Report": _report(message.report),
        "Size": f"{message.size} octets, sha256 {message.sha256}",
        "State": message.state + (f": {message.error}" if message.error else ""),
        "Verdicts": ", ".join(f"{key}={value}" for key, value in sorted(message.authentication.items())),
    }
    for name, value in fields.items():
        if value:
            yield f"{name + ':':<12}{shorten(str(value), _WIDE)}"
    for delivery in message.deliveries:
        sender, recipient = shorten(delivery.sender or "<>", 300), shorten(delivery.recipient, 300)
        queue = f", queue id {shorten(delivery.queue_id, 100)}" if delivery.queue_id else ""
        lease = f", lease {delivery.lease}" if delivery.lease else ""
        later = "".join(f", also for {shorten(each, 300)}" for each in delivery.later_original_recipients)
        later += "".join(f", also through {shorten(each, 300)}" for each in delivery.later_list_ids)
        received = local(delivery.received_at)
        yield f"{'Delivery:':<12}{delivery.id} from {sender} to {recipient}, {received}{queue}{lease}{later}"
    for defect in message.defects:
        where = f" ({defect['where']})" if defect["where"] else ""
        yield f"{'Defect:':<12}{defect['code']}{where} {shorten(defect['detail'], 100)}".rstrip()
    if message.attachments:
        head = ["N", "FILE", "TYPE", "SIZE", "CONTENT-ID"]
        yield ""
        yield from table(
            head,
            [
                [
                    attachment.ordinal,
                    attachment.file_name,
                    attachment.content_type,
                    human_size(attachment.size),
                    attachment.content_id,
                ]
                for attachment in message.attachments
            ],
        )
    if header:
        yield ""
        for name, value in message.header:
            yield from block(f"{name}: {value}")
    body = next(filter(None, (message.text_body, message.text_from_html, message.html_body)), None)
    if body is not None:
        yield ""
        yield from block(body)


def _unsubscribe(message: Message) -> str:
    return " ".join(message.list_unsubscribe) + (" (one click)" if message.list_unsubscribe_post else "")


def _report(report: Report | None) -> str:
    """Return in one line what a report is about: recipients with their status, or the kind of a complaint."""
    if report is None:
        return ""
    recipients = [
        " ".join(filter(None, (one.get("final_recipient"), one.get("action"), one.get("status"))))
        for one in report.get("recipients", [])[:_RECIPIENTS]
    ]
    words = [report["type"], *recipients, report.get("feedback_type"), report.get("disposition")]
    about = report.get("original_message_id")
    return ", ".join(filter(None, words)) + (f", about <{about}>" if about else "")


def _addresses(addresses: Mailboxes) -> str:
    return ", ".join(f"{each['name']} <{each['address']}>" if each["name"] else each["address"] for each in addresses)


def _sent(date: datetime | None, offset: int | None) -> str:
    """Return the date of a message in the time zone of its sender."""
    if date is None:
        return ""
    with suppress(
        OverflowError, ValueError
    ):  # a zone of a day or more, or a date that the zone moves out of the calendar
        date = date.astimezone(timezone(timedelta(minutes=offset or 0)))
    return date.isoformat(" ", "seconds")


def _write(output: str, content: bytes) -> None:
    if output == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        replace_file(Path(output), content, 0o600)
