"""The space left behind: tables after many short-lived messages, compared with a fresh copy of their live rows.

    bench/run expiry [--messages 1000000] [--live 50000] [--rate 1500]

The messages are inserted into the tables directly (through ingest it would take hours), 100 per transaction. Those in
excess of `live` are removed, the oldest first, by pipehandler.expire. Autovacuum wakes up every second instead of every
minute, and does not pause: one second here corresponds to a minute of a real host with a sixtieth of the rate. It runs
once with the autovacuum settings of sql/, and once with PostgreSQL's defaults. Takes half a gigabyte.
"""

import time
from datetime import UTC, datetime

import psycopg
from harness.database import Database
from report import Aim, Report, Table
from setting import Setting

SMALL = {"messages": 2_000, "live": 300, "rate": 10_000}
_TOGETHER = 100  # messages in one transaction
_BATCH = 500  # deliveries that one call of expire removes
_TABLES = ("message", "raw_message", "attachment", "delivery")
_HASTE = {"autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "0"}

# 4 KB of bytes that do not compress, a text and a header of 2 KB; one in ten has an attachment of 8 KB.
POOL = """
CREATE TEMPORARY TABLE pool AS
SELECT p AS place, (SELECT string_agg(md5(p || ' ' || i), ' ') FROM generate_series(1, 45) AS i) AS text_body,
       (SELECT jsonb_agg(jsonb_build_array('Received', md5(p || ' ' || i))) FROM generate_series(46, 60) AS i) AS header,
       (SELECT string_agg(md5(p || ' ' || i), '') FROM generate_series(1, 128) AS i)::bytea AS raw,
       (SELECT string_agg(md5(p || ' ' || i), '') FROM generate_series(1, 256) AS i)::bytea AS content
  FROM generate_series(0, 99) AS p
"""
STORE = """
WITH n AS (
    SELECT n, md5(n::text)::uuid AS id, sha256(n::text::bytea) AS digest, p.*
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n JOIN pool p ON p.place = n %% 100
),
message AS (
    INSERT INTO pipehandler.message (day, id, received_at, message_id, date, subject, from_name, from_address, from_list, to_list,
                                     text_body, header, size, sha256, state, parser)
    SELECT %(day)s, id, now(), md5(n::text) || '@mail.sender.example', now(), 'Number ' || n, 'Sender', 'news@sender.example',
           '[{"name": "Sender", "address": "news@sender.example", "group": ""}]',
           '[{"name": "", "address": "member@example.com", "group": ""}]', text_body, header, 4096, digest, 'parsed', '1'
      FROM n
),
raw AS (
    INSERT INTO pipehandler.raw_message (day, message, raw) SELECT %(day)s, id, raw FROM n
),
attachment AS (
    INSERT INTO pipehandler.attachment (day, message, ordinal, part, content_type, size, sha256, content)
    SELECT %(day)s, id, 1, '2', 'image/png', 8192, digest, content FROM n WHERE n %% 10 = 0
)
INSERT INTO pipehandler.delivery (day, message, recipient, fingerprint, original_recipient, sender, queue_id, mail_host, ingress,
                                  client_address, client_hostname, client_helo, client_port, client_protocol, received_at, expires_at)
SELECT %(day)s, id, 'user' || n %% 2000 || '@example.com', digest, 'user' || n %% 2000 || '@example.com', 'bounce-' || n || '@sender.example',
       '4X' || substring(md5(n::text) FOR 12), 'mx.example.net', 'pipe', '192.0.2.7', 'out.sender.example', 'out.sender.example', 40000,
       'ESMTP', now(), '2026-01-01Z'::timestamptz + n * interval '1 ms'
  FROM n
"""

_SIZES = f"""
SELECT {
    ", ".join(
        f"(SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE c.relnamespace = 'pipehandler'::regnamespace"
        f" AND c.relkind = 'r' AND c.relname ~ '^{table}(_undated|_[0-9]{{8}})?$')::bigint AS {table}"
        for table in _TABLES
    )
}
"""


def measure(setting: Setting, *, messages: int = 1_000_000, live: int = 50_000, rate: int = 1_500) -> Report:
    """Store and expire, with both settings; raises unless exactly `live` messages are left."""
    rows: list[list[object]] = []
    growth: list[list[object]] = []
    ratios = []
    for name, as_set in (("sql/", True), ("default", False)):
        with Database.fresh(setting.server) as database:
            if not as_set:
                _reset(database)
            _configure(setting, haste=True)
            try:
                seconds, seen = _turn_over(database, messages, live, rate)
            finally:
                _configure(setting, haste=False)
            before = database.rows(_SIZES)[0]
            database.execute("VACUUM FULL")
            floor = database.rows(_SIZES)[0]
        for table, is_now, least in zip((*_TABLES, "all"), (*before, sum(before)), (*floor, sum(floor)), strict=True):
            rows.append([name, table, is_now / 2**20, least / 2**20, is_now / least])
        ratios.append(sum(before) / sum(floor))
        growth.append([name, messages / seconds, *(size / 2**20 for size in seen)])
    note = (
        f"MB after {messages:,} messages of about 9 KB of which {live:,} live at any time, with indexes and TOAST; fresh: the same rows after"
        " VACUUM FULL. Autovacuum looks each second and does not pause."
    )
    return Report(
        [
            Table("Space after many short lives", ["autovacuum", "table", "MB", "fresh MB", "times"], rows, note),
            Table(
                "Space while they pass",
                ["autovacuum", "messages/s", *(f"MB at {tenth}/10" for tenth in (1, 4, 7, 10))],
                growth,
            ),
        ],
        [Aim("tables after many short-lived messages, of a fresh copy of what lives", ratios[0], 1.5)],
    )


def _turn_over(database: Database, messages: int, live: int, rate: int) -> tuple[float, list[int]]:
    """Store and remove messages, at most `rate` per second; returns the seconds, and the octets of all tables after
    some tenths of the messages."""
    seen = []
    started = time.monotonic()
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(POOL)
        today = datetime.now(UTC).date()
        stored = there = 0
        for tenth in (1, 4, 7, 10):
            while stored < messages * tenth // 10:
                last = min(stored + _TOGETHER, messages)
                connection.execute(STORE, {"first": stored + 1, "last": last, "day": today})
                there += last - stored
                stored = last
                time.sleep(max(0.0, started + stored / rate - time.monotonic()))
                if there >= live + _BATCH or (stored == messages and there > live):
                    row = connection.execute(
                        "SELECT messages FROM pipehandler.expire(%s)", [min(_BATCH, there - live)]
                    ).fetchone()
                    there -= row[0] if row else 0
            seen.append(sum(database.rows(_SIZES)[0]))
    seconds = time.monotonic() - started
    count = database.value("SELECT count(*) FROM pipehandler.message")
    if count != min(live, messages):
        raise RuntimeError(f"{count} messages are there, not {live}")
    return seconds, seen


def _reset(database: Database) -> None:
    """Remove the autovacuum settings of sql/."""
    for row in database.rows(
        "SELECT c.oid::regclass::text AS name, string_agg(split_part(o, '=', 1), ', ') AS settings"
        "  FROM (SELECT oid, unnest(reloptions) AS o FROM pg_class"
        "         UNION ALL SELECT p.oid, 'toast.' || unnest(t.reloptions) FROM pg_class p JOIN pg_class t ON t.oid = p.reltoastrelid) AS c"
        " WHERE c.oid::regclass::text LIKE 'pipehandler.%' AND o ~ '^(toast.)?autovacuum' GROUP BY c.oid"
    ):
        database.execute(f"ALTER TABLE {row.name} RESET ({row.settings})")


def _configure(setting: Setting, haste: bool) -> None:
    for name, value in _HASTE.items():
        setting.server.psql(
            "postgres", f"ALTER SYSTEM SET {name} = '{value}'" if haste else f"ALTER SYSTEM RESET {name}"
        )
    setting.server.reload()
