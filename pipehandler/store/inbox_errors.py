"""What the functions of the inbox page refuse, as exceptions: each SQLSTATE of sql/code/56_inbox_rules.sql, and some of
PostgreSQL that they raise on purpose."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from .errors import (
    INBOX_ENDED,
    INSUFFICIENT_PRIVILEGE,
    LIFETIME_REACHED,
    NAME_REFUSED,
    NAME_TAKEN,
    NETWORK_CLOSED,
    NO_DATA_FOUND,
    NOT_KEPT,
    QUOTA_REACHED,
    RAISE_EXCEPTION,
    TOO_MANY_INBOXES,
    StoreError,
    translated,
)


class InboxError(StoreError):
    """The database refuses what was asked, and will refuse it again; it is not at fault."""


class KeyRefused(InboxError):
    """The key opens nothing, or not as much as this: it is unknown, was removed or revoked, or has expired."""


class InboxExpired(InboxError):
    """The inbox has ended, and can be brought back until its grace ends (Inbox.grace_until)."""


class NameRefused(InboxError):
    """Visitors do not get this name, or addresses of this domain."""


class NameTaken(InboxError):
    """The address belongs to another key, or did until recently."""


class QuotaReached(InboxError):
    """The inbox is shared by as many keys as it may."""


class NetworkClosed(InboxError):
    """The operator lets nobody of this network open an inbox."""


class TooManyInboxes(InboxError):
    """There are as many inboxes as the database lets visitors open (sql/code/56_inbox_rules.sql).

    limit: the key in [web]: domain_opened_per_hour or max_inboxes. seconds: after these there may be room.
    """

    limit: str = ""
    seconds: int = 60


class LifetimeReached(InboxError):
    """The inbox has ended, and has lasted as long as it may."""


class NoSuchMail(InboxError):
    """The inbox has no such delivery, or the delivery no such attachment."""


class NotKept(InboxError):
    """The content was not stored, or retention has removed it."""


class BadCursor(InboxError):
    """The cursor is none, or from before a restore, or of another cluster: begin with `cursor_now`."""


class SearchTooSlow(InboxError):
    """The search took too long."""


_ERRORS: dict[str, type[InboxError]] = {
    INBOX_ENDED: InboxExpired,
    NAME_REFUSED: NameRefused,
    NAME_TAKEN: NameTaken,
    QUOTA_REACHED: QuotaReached,
    NETWORK_CLOSED: NetworkClosed,
    LIFETIME_REACHED: LifetimeReached,
    NO_DATA_FOUND: NoSuchMail,
    NOT_KEPT: NotKept,
    TOO_MANY_INBOXES: TooManyInboxes,
    RAISE_EXCEPTION: BadCursor,  # nothing else that is called here raises it
}

_RAISE = "exec_stmt_raise"
"""The routine of the server that RAISE runs: 42501 from another one is a right that the role lacks."""


@contextmanager
def refused() -> Iterator[None]:
    """Turn psycopg's errors into StoreError, those that the functions raise into the exceptions above."""
    try:
        with translated():
            yield
    except StoreError as error:
        kind = _ERRORS.get(error.sqlstate)
        if error.sqlstate == INSUFFICIENT_PRIVILEGE and _raised(error.__cause__):
            kind = KeyRefused
        if kind is None:
            raise
        refusal = kind(error.outcome, str(error), error.sqlstate)
        if isinstance(refusal, TooManyInboxes) and isinstance(error.__cause__, psycopg.Error):
            refusal.limit = error.__cause__.diag.constraint_name or ""
            refusal.seconds = int(error.__cause__.diag.message_detail or refusal.seconds)
        raise refusal from error


def _raised(cause: BaseException | None) -> bool:
    return isinstance(cause, psycopg.Error) and cause.diag.source_function == _RAISE
