"""What the commands share: the program's options, errors as one line and an exit status, JSON.

Exit statuses of all commands: 0 success; 2 wrong usage (click); 65 a message whose row
cannot be read; 66 no such message; 69 the database or the service does not
answer, or a package is not installed; 78 wrong configuration.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pipehandler.cli.terminal import say, say_json
from pipehandler.mail.sysexits import EX_CANTCREAT, EX_CONFIG, EX_DATAERR, EX_NOINPUT, EX_TEMPFAIL, EX_UNAVAILABLE
from pipehandler.maildir.folder import MaildirError
from pipehandler.postfix.postconf import DEFAULT_DIRECTORY
from pipehandler.settings.config_file import ConfigError, load
from pipehandler.settings.extras import MissingExtraError
from pipehandler.store.connection import Store
from pipehandler.store.errors import NotConnected, StoreError
from pipehandler.store.hints import hint
from pipehandler.store.ids import NoSuchMessage
from pipehandler.store.message_store import MessageStore
from pipehandler.store.messages import UnreadableMessage
from pipehandler.store.migrate import LocksNotFree, MigrationError
from pipehandler.store.refusal import advice
from pipehandler.store.roles import MAINTENANCE, READER
from pipehandler.store.shards import Shard, chosen, shards
from pipehandler.workers.listener import ServeError

STATEMENT_SECONDS = 3600
"""The limit of a statement of a command; an operator can press Ctrl-C."""

LOCK_SECONDS = 10.0
"""How long a statement of a command waits for a lock that another session holds."""


config_directory_option = click.option(
    "--config-directory",
    default=DEFAULT_DIRECTORY,
    show_default=True,
    envvar="MAIL_CONFIG",
    help="Postfix's configuration directory, or MAIL_CONFIG in the environment.",
)
"""The instance of Postfix, named as for Postfix's own commands."""


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only what needs attention.")
"""For commands that run from cron(8) or a script. JSON is printed all the same."""


class Failure(click.ClickException):
    """An error that is reported as one line on stderr, with an exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a class variable
        """The exit status."""
        return self.status

    def show(self, file: Any = None) -> None:
        """Print the line."""
        say(f"Error: {self.format_message()}", err=True)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn the errors of this package into a Failure."""
    try:
        yield
    except LocksNotFree as error:
        raise Failure(str(error), EX_TEMPFAIL) from error
    except (ConfigError, MigrationError) as error:
        raise Failure(str(error), EX_CONFIG) from error
    except NoSuchMessage as error:
        raise Failure(str(error), EX_NOINPUT) from error
    except UnreadableMessage as error:
        raise Failure(str(error), EX_DATAERR) from error
    except (MissingExtraError, MaildirError, ServeError) as error:
        raise Failure(str(error), EX_UNAVAILABLE) from error
    except StoreError as error:
        code = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
        text = hint(error.sqlstate, f"{READER} (database.admin_conninfo)")
        raise Failure("; ".join(filter(None, (f"database: {error}{code}", text))), EX_UNAVAILABLE) from error


def chosen_conninfo(context: click.Context) -> str:
    """Return the conninfo of the options, or that of the configuration for commands. Raises ConfigError."""
    conninfo: str | None = context.obj["conninfo"]
    if conninfo is None:
        database = load(context.obj["config"]).database
        conninfo = database.admin_conninfo or database.conninfo
    name: str | None = context.obj["shard"]
    if name is None:
        return conninfo
    with closing(Store(conninfo)) as proxy:
        shard = chosen(proxy, name)
        if shard is None:
            raise Failure(f"--shard {name}: {_named(shards(proxy))}", EX_CONFIG)
        return shard.own(conninfo)


def _named(found: Sequence[Shard]) -> str:
    """Return which shards there are."""
    if not found:
        return "this database is not sharded"
    return f"the shards have the numbers 0 to {len(found) - 1}, and the address of a recipient stands for the one that has its mail"


@contextmanager
def opened_store(context: click.Context, of_proxy: bool = False) -> Iterator[MessageStore]:
    """Open the store that the options name, and close it at the end; errors become a Failure.

    of_proxy: whether the command works on the proxy of a sharded database. Its tables are empty: others would find nothing.
    """
    with reported_errors():
        conninfo = chosen_conninfo(context)
        store = MessageStore(conninfo, statement_timeout=STATEMENT_SECONDS)  # with which `import` delivers
        store.longest_lock = LOCK_SECONDS
        found: list[Shard] = []
        try:
            with suppress(NotConnected):  # which the command itself reports in its own way
                found = [] if of_proxy else shards(store)
            if found:
                raise Failure(
                    f"the mail of this database is on {len(found)} shards: name one with --shard N (0 to"
                    f" {len(found) - 1}) or --shard ADDRESS, that of a recipient",
                    EX_CONFIG,
                )
            yield store
        except NotConnected as error:
            if text := advice(conninfo, (READER, MAINTENANCE)):
                raise Failure(f"database: {error}; {text}", EX_UNAVAILABLE) from error
            raise
        finally:
            store.close()


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun; the plural has an s if it is not given."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def local(time: datetime) -> str:
    """Return a time as text, in the local time zone; at the ends of the calendar, where that has no date, in its own."""
    with suppress(OverflowError, ValueError):
        time = time.astimezone()
    return time.isoformat(" ", "seconds")


def echo_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON that is safe on a terminal; on one line if `indent` is None."""
    say_json(json.dumps(value, ensure_ascii=False, indent=indent, default=_jsonable))


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} in JSON")


def replace_file(path: Path, octets: bytes, mode: int) -> None:
    """Replace or create a file atomically, with `mode`; on any failure it stays as it was. Raises Failure."""
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)  # or a power failure could leave an empty file under the name
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = f"{path}: {error.strerror}; its folder must be writable, with {len(octets)} octets free"
        raise Failure(reason, EX_CANTCREAT) from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
