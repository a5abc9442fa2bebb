"""What the commands share: options of the whole program, errors as a line and a status, JSON.

Exit statuses of all: 0; 2 wrong usage (click); 66 no such message; 69 the database does not answer, or a
package is not installed; 78 wrong configuration.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import click

from pipehandler.cli.terminal import UNSAFE
from pipehandler.mail.sysexits import EX_CONFIG, EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.settings.config import ConfigError, load
from pipehandler.settings.extras import MissingExtraError
from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.mailbox import NoSuchMessage
from pipehandler.store.migrate import MigrationError
from pipehandler.workers.listener import ServeError

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
def told() -> Iterator[None]:
    """Turn our errors into a line and a status."""
    try:
        yield
    except (ConfigError, MigrationError) as error:
        raise Failure(str(error), EX_CONFIG) from error
    except NoSuchMessage as error:
        raise Failure(str(error), EX_NOINPUT) from error
    except (MissingExtraError, ServeError) as error:
        raise Failure(str(error), EX_UNAVAILABLE) from error
    except StoreError as error:
        raise Failure(
            f"database: {error}" + (f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""), EX_UNAVAILABLE
        ) from error


def chosen_conninfo(context: click.Context) -> str:
    """Where the options say that the database is. Raises ConfigError."""
    given: str | None = context.obj["conninfo"]
    if given is not None:
        return given
    database = load(context.obj["config"]).database
    return database.admin_conninfo or database.conninfo


@contextmanager
def opened_store(context: click.Context) -> Iterator[Store]:
    """The store that the options name."""
    with told():
        store = Store(chosen_conninfo(context), statement_timeout=_STATEMENT_TIMEOUT)
        try:
            yield store
        finally:
            store.close()


def local(time: datetime) -> str:
    """A time for a person, in the local zone."""
    return time.astimezone().isoformat(" ", "seconds")


def echo_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON that a terminal can show; on one line where `indent` is None."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_jsonable)
    # JSON escapes most control characters; a terminal would obey the others.
    click.echo(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} in JSON")
