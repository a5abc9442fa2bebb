"""Days that have passed: what is stored becomes older, as if it had been stored then."""

from datetime import UTC, date, datetime, timedelta

import psycopg

from .database import Database

KEYS = {"message": "id", "raw_message": "message", "attachment": "message, ordinal"}
"""The partitioned tables, and the keys of their partitions."""

UNDATED = date(1970, 1, 1)


def today() -> date:
    """The day of what is stored now."""
    return datetime.now(UTC).date()


def partition(table: str, day: date) -> str:
    """The name of the partition of a day."""
    return f"pipehandler.{table}_{day:%Y%m%d}"


def create_day(database: Database, day: date) -> None:
    """Create the partitions of a day, which may be one in the past."""
    for table, key in KEYS.items():
        database.execute(
            f"CREATE TABLE IF NOT EXISTS {partition(table, day)} PARTITION OF pipehandler.{table} (PRIMARY KEY ({key}))"
            f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        )


def drop_day(database: Database, day: date) -> None:
    """Drop the partitions of a day, whatever is in them."""
    database.execute(f"DROP TABLE IF EXISTS {', '.join(partition(table, day) for table in KEYS)}")


def partitions(database: Database) -> list[date]:
    """The days that have partitions."""
    rows = database.rows(
        "SELECT to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD') AS day FROM pg_inherits"
        " WHERE inhparent = 'pipehandler.message'::regclass AND inhrelid <> 'pipehandler.message_undated'::regclass"
        " ORDER BY 1"
    )
    return [row.day for row in rows]


def make_older(database: Database, days: int, since: date | None = None) -> date:
    """Move what was stored on one day (default: today) so many days into the past, with the times of its deliveries;
    returns the day on which it is now."""
    since = since or today()
    day = since - timedelta(days=days)
    create_day(database, day)
    with psycopg.connect(database.admin) as connection:
        connection.execute("SET session_replication_role = replica")  # message first, without what belongs to it
        for table in KEYS:
            connection.execute(
                f"INSERT INTO pipehandler.{table}"
                f" SELECT (jsonb_populate_record(NULL::pipehandler.{table}, to_jsonb(t) || jsonb_build_object('day', %s::date))).*"
                f"  FROM pipehandler.{table} t WHERE t.day = %s",
                [day, since],
            )
            connection.execute(f"DELETE FROM pipehandler.{table} t WHERE t.day = %s", [since])
        connection.execute(
            "UPDATE pipehandler.delivery d SET day = %(day)s, stored_at = d.stored_at - %(ago)s, expires_at = d.expires_at - %(ago)s,"
            "  raw_until = d.raw_until - %(ago)s, attachments_until = d.attachments_until - %(ago)s WHERE d.day = %(since)s",
            {"day": day, "since": since, "ago": timedelta(days=days)},
        )
    return day
