"""The operator's commands: `pipehandler COMMAND`. Delivery does not pass here, so click is loaded only now.

Exit statuses: 0; 2 wrong usage (click); 66 no such message; 69 the database does not answer; 78 wrong configuration.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import click

from . import __version__, mailbox, postfix
from .config import DEFAULT_PATH, DEFAULT_SOCKET, ConfigError, load
from .listening import ServeError, ask
from .mailbox import NoSuchMessage
from .migrate import MigrationError, migrate, plan
from .store import Store, StoreError
from .sysexits import EX_CONFIG, EX_NOINPUT, EX_UNAVAILABLE
from .table import UNSAFE, cut, safe, table

_STATEMENT_TIMEOUT = 3600  # seconds; a person can press Ctrl-C


class Failure(click.ClickException):
    """An error for a person: one line on stderr, and the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a class variable
        """The exit status."""
        return self.status


@contextmanager
def _told() -> Iterator[None]:
    """Turn our errors into a line and a status."""
    try:
        yield
    except (ConfigError, MigrationError) as error:
        raise Failure(str(error), EX_CONFIG) from error
    except NoSuchMessage as error:
        raise Failure(str(error), EX_NOINPUT) from error
    except ServeError as error:
        raise Failure(str(error), EX_UNAVAILABLE) from error
    except StoreError as error:
        raise Failure(
            f"database: {error}" + (f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""), EX_UNAVAILABLE
        ) from error


@contextmanager
def _store(context: click.Context) -> Iterator[Store]:
    """The store that the options name."""
    with _told():
        conninfo = context.obj["conninfo"]
        if conninfo is None:
            database = load(context.obj["config"]).database
            conninfo = database.admin_conninfo or database.conninfo
        store = Store(conninfo, statement_timeout=_STATEMENT_TIMEOUT)
        try:
            yield store
        finally:
            store.close()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", default=DEFAULT_PATH, show_default=True, help="The configuration file.")
@click.option("--conninfo", help="Connect with this libpq connection string instead of the configured one.")
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context, config: str, conninfo: str | None) -> None:
    """Mail from Postfix's pipe(8) into PostgreSQL: once, byte-exact, in one transaction."""
    context.obj = {"config": config, "conninfo": conninfo}


@cli.command("deliver", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, metavar="--sender=ADDRESS [--MACRO=VALUE]... -- RECIPIENT...")
@click.pass_context
def _deliver(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Deliver the message on stdin: what pipe(8) runs, see `pipehandler postfix`.

    The macros are those of pipe(8), with dashes; --config=FILE names the configuration.
    """
    from .fence import deliver

    # As they were given: click has its own ideas about "--".
    deliver([f"--config={context.obj['config']}", *sys.argv[sys.argv.index("deliver") + 1 :]])


@cli.command("migrate")
@click.option("--dry-run", is_flag=True, help="Print what would be done, as a script for psql.")
@click.pass_context
def _migrate(context: click.Context, dry_run: bool) -> None:
    """Bring the schema of the database up to date; safe to run twice, and from two hosts at once."""
    with _store(context) as store:
        if dry_run:
            click.echo(plan(store) or "-- nothing to do\n", nl=False)
            return
        done = migrate(store)
        for migration in done:
            click.echo(f"applied {migration.name}")
        if not done:
            click.echo("nothing to do: the schema is up to date")


@cli.command("postfix")
@click.argument("file", type=click.Choice(["all", *postfix.FILES]), default="all")
@click.option("--user", default="pipehandler", show_default=True, help="The account that the handler runs as.")
@click.option("--domain", default="example.com", show_default=True, help="The domain whose mail is stored.")
@click.option(
    "--config-directory", default="/etc/postfix", show_default=True, help="Postfix's configuration directory."
)
@click.option("--socket", default=DEFAULT_SOCKET, show_default=True, help="Where `pipehandler serve` listens.")
@click.option("--maxproc", default=20, show_default=True, help="So many messages at once; below max_connections.")
@click.pass_context
def _postfix(context: click.Context, /, file: str, **options: Any) -> None:
    """Print the lines for master.cf and main.cf, and units for systemd, with the paths of this installation."""
    for name in postfix.FILES if file == "all" else [file]:
        if file == "all":
            click.echo(f"##### {name}")
        click.echo(postfix.lines(name, config=context.obj["config"], **options))


@cli.command("serve")
@click.option("--status", is_flag=True, help="Ask the running service how it goes.")
@click.option("--json", "as_json", is_flag=True, help="With --status: a JSON object, for programs.")
@click.pass_context
def _serve(context: click.Context, status: bool, as_json: bool) -> None:
    """Run the resident workers, which deliver without the cost of a start.

    SIGTERM ends it when what is under way is finished; SIGHUP reads the configuration again. Without it every message is
    delivered cold.
    """
    with _told():
        config = load(context.obj["config"])
        if not status:
            from .serve import serve  # and with it all that a delivery needs

            serve(context.obj["config"], config)
            return
        told = ask(config.serve.socket)
    if as_json:
        _json(told)
    else:
        click.echo(table(["WORKERS", "COUNT"], [[name, count] for name, count in told.items()]))


@cli.command("list")
@click.option("--recipient", help="An address; * stands for anything.")
@click.option("--sender", help="Part of the envelope sender or of From.")
@click.option("--subject", help="Part of the subject.")
@click.option("--since", type=click.DateTime(), help="Received at this local time or later.")
@click.option("--until", type=click.DateTime(), help="Received before this local time.")
@click.option("--state", type=click.Choice(["parsed", "failed"]), help="failed: stored, but not parsed.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@click.pass_context
def _list(context: click.Context, /, as_json: bool, **filters: Any) -> None:
    """List what arrived, newest first."""
    for name in ("since", "until"):
        if filters[name] is not None:
            filters[name] = filters[name].astimezone()  # as given: local time
    with _store(context) as store:
        rows = mailbox.deliveries(store, **filters)
    if as_json:
        _json(rows)
    elif not rows:
        click.echo("nothing found")
    else:
        click.echo(
            table(
                ["ID", "RECEIVED", "RECIPIENT", "FROM", "SUBJECT", "SIZE", "FILES", "STATE"],
                [
                    [
                        row["id"],
                        _local(row["received_at"]),
                        row["recipient"],
                        row["from_name"] or row["from_address"] or row["sender"],
                        row["subject"],
                        row["size"],
                        row["attachments"],
                        row["state"],
                    ]
                    for row in rows
                ],
            )
        )


@cli.command("show")
@click.argument("name", metavar="ID")
@click.option("--header", is_flag=True, help="All header fields.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")
@click.pass_context
def _show(context: click.Context, name: str, header: bool, as_json: bool) -> None:
    """Show one message. ID is the number of a delivery or the UUID of a message."""
    with _store(context) as store:
        row = mailbox.message(store, name)
    if as_json:
        _json(row)
        return
    click.echo(safe("\n".join(_described(row, header))))


@cli.command("raw")
@click.argument("name", metavar="ID")
@click.pass_context
def _raw(context: click.Context, name: str) -> None:
    """Write the exact bytes of a message to stdout."""
    with _store(context) as store:
        _bytes(mailbox.raw(store, name))


@cli.command("attachment")
@click.argument("name", metavar="ID")
@click.argument("number", type=click.IntRange(min=1))
@click.pass_context
def _attachment(context: click.Context, name: str, number: int) -> None:
    """Write the content of attachment NUMBER of a message to stdout."""
    with _store(context) as store:
        _bytes(mailbox.attachment(store, name, number))


def _described(row: mailbox.Row, header: bool) -> Iterator[str]:
    """A message as lines for a person."""
    fields = {
        "Message": row["id"],
        "Subject": row["subject"],
        "From": _addresses(row["from_list"]),
        "To": _addresses(row["to_list"]),
        "Cc": _addresses(row["cc_list"]),
        "Reply-To": _addresses(row["reply_to_list"]),
        "Date": _sent(row["date"], row["date_offset"]),
        "Message-ID": row["message_id"],
        "List-Id": row["list_id"],
        "Size": f"{row['size']} octets, sha256 {row['sha256']}",
        "State": row["state"] + (f": {row['error']}" if row["error"] else ""),
        "Verdicts": ", ".join(f"{key}={value}" for key, value in sorted(row["authentication"].items())),
    }
    for name, value in fields.items():
        if value:
            yield f"{name + ':':<12}{' '.join(str(value).split())}"
    for delivery in row["deliveries"]:
        sender = delivery["sender"] or "<>"
        queue = f", queue id {delivery['queue_id']}" if delivery["queue_id"] else ""
        yield f"{'Delivery:':<12}{delivery['id']} from {sender} to {delivery['recipient']}, {_local(delivery['received_at'])}{queue}"
    for defect in row["defects"]:
        where = f" ({defect['where']})" if defect["where"] else ""
        yield f"{'Defect:':<12}{defect['code']}{where} {cut(defect['detail'], 100)}".rstrip()
    if row["attachments"]:
        head = ["N", "FILE", "TYPE", "SIZE", "CONTENT-ID"]
        columns = ["ordinal", "file_name", "content_type", "size", "content_id"]
        yield ""
        yield table(head, [[each[column] for column in columns] for each in row["attachments"]])
    if header:
        yield ""
        yield from (f"{name}: {body}" for name, body in row["header"])
    body = row["text_body"] if row["text_body"] is not None else row["html_body"]
    if body is not None:
        yield ""
        yield body


def _addresses(addresses: list[dict[str, str]]) -> str:
    return ", ".join(f"{each['name']} <{each['address']}>" if each["name"] else each["address"] for each in addresses)


def _local(time: datetime) -> str:
    return time.astimezone().isoformat(" ", "seconds")


def _sent(date: datetime | None, offset: int | None) -> str:
    """The date of a message in the zone of its sender."""
    if date is None:
        return ""
    return date.astimezone(timezone(timedelta(minutes=offset or 0))).isoformat(" ", "seconds")


def _json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_jsonable)
    # JSON escapes most control characters; a terminal would obey the others.
    click.echo(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in JSON")


def _bytes(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
