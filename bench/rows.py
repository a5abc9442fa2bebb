"""How cost grows with the rows already stored: the cost of one message among so many rows.

    bench/run rows [--rows 5000000] [--rounds 500]

Three databases on one server, filled with 1,000 messages, 50 times fewer than `rows`, and `rows`; each message goes to
all three in turn, handed to a worker directly. Takes 1.4 GB for a million rows.
"""

import statistics
from contextlib import ExitStack

import psycopg
from handover import hand_over
from harness.database import Database
from mail import newsletter
from psycopg import sql
from report import Aim, Report, Table
from setting import Clock, Setting, backends

SMALL = {"rows": 2000, "rounds": 5}
_FEW = 1000
_BETWEEN = 50  # times fewer
_TABLES = ("message", "raw_message", "delivery")

# Ids, Message-IDs and fingerprints are spread as hashes are, addresses repeat. The bodies are left out: writing a new
# row reads no old one, and only the indexes grow with the number of rows.
_FILL = (
    """
    INSERT INTO pipehandler.message (id, received_at, message_id, date, subject, from_name, from_address, from_list, to_list,
                                     list_id, header, size, sha256, state, parser)
    SELECT encode(substring(sha256(int8send(n)) FOR 16), 'hex')::uuid, now() - (%(rows)s - n) * interval '1 second',
           md5(n::text) || '@mail.sender' || n %% 500 || '.example', now() - (%(rows)s - n) * interval '1 second',
           'Number ' || n || ' of a newsletter', 'Sender ' || n %% 5000, 'news' || n %% 5000 || '@sender' || n %% 500 || '.example',
           jsonb_build_array(jsonb_build_object('name', 'Sender ' || n %% 5000, 'address', 'news' || n %% 5000 || '@sender.example')),
           '[{"name": "", "address": "member@example.com", "group": ""}]', 'list' || n %% 5000 || '.sender.example',
           '[["From", "Sender"], ["To", "member@example.com"], ["Subject", "A newsletter"]]', 12000, sha256(int8send(n)), 'parsed', '1'
      FROM generate_series(1, %(rows)s::bigint) AS n
    """,
    """
    INSERT INTO pipehandler.raw_message (message, raw)
    SELECT encode(substring(sha256(int8send(n)) FOR 16), 'hex')::uuid, sha256(int8send(n))
      FROM generate_series(1, %(rows)s::bigint) AS n
    """,
    """
    INSERT INTO pipehandler.delivery (message, recipient, fingerprint, original_recipient, sender, queue_id, mail_host, ingress,
                                      client_address, client_hostname, client_helo, client_port, client_protocol, received_at)
    SELECT encode(substring(sha256(int8send(n)) FOR 16), 'hex')::uuid, 'user' || n %% 20000 || '@example.com',
           sha256(int8send(-n)), 'user' || n %% 20000 || '@example.com', 'bounce-' || n || '@sender.example',
           '4X' || substring(md5(n::text) FOR 12), 'mx.example.net', 'pipe', '192.0.2.7', 'out.sender.example',
           'out.sender.example', 40000, 'ESMTP', now() - (%(rows)s - n) * interval '1 second'
      FROM generate_series(1, %(rows)s::bigint) AS n
    """,
)


def measure(setting: Setting, *, rows: int = 5_000_000, rounds: int = 500) -> Report:
    """Fill, deliver, compare; raises if a message was not stored."""
    counts = sorted({min(_FEW, rows), max(1, rows // _BETWEEN), rows})
    with ExitStack() as stack:
        databases = [stack.enter_context(Database.fresh(setting.server)) for _ in counts]
        for database, count in zip(databases, counts, strict=True):
            _fill(setting, database, count)
        handlers = [setting.handler(each, serve={"workers": 1, "max_messages": 1_000_000}) for each in databases]
        services = [stack.enter_context(setting.service(each)) for each in handlers]
        for handler in handlers:
            hand_over(handler, newsletter(0), "warm@example.com")
        setting.server.psql("postgres", "CHECKPOINT")
        workers = [Clock(*service.workers()) for service in services]
        sessions = [Clock(*backends(database)) for database in databases]
        seconds: list[list[float]] = [[] for _ in counts]
        wal: list[list[int]] = [[] for _ in counts]
        for number in range(1, rounds + 1):
            for place, handler in enumerate(handlers):
                before = (
                    setting.server.psql("postgres", "SELECT pg_current_wal_insert_lsn()") if number % 10 == 1 else ""
                )
                seconds[place].append(
                    hand_over(handler, newsletter(number), f"user{number * 7919 % 20000}@example.com")
                )
                if before:
                    written = setting.server.psql(
                        "postgres", f"SELECT pg_current_wal_insert_lsn() - '{before.strip()}'"
                    )
                    wal[place].append(int(written))
        spent = [
            [1000 * clocks[place].seconds() / rounds for clocks in (workers, sessions)] for place in range(len(counts))
        ]
        sizes = [database.value("SELECT pg_database_size(current_database())") / 2**20 for database in databases]
        stored = [database.value("SELECT count(*) FROM pipehandler.delivery") for database in databases]
    if stored != [count + rounds + 1 for count in counts]:
        raise RuntimeError(f"{stored} are stored, of {rounds + 1} new ones beside {counts}")
    median = [1000 * statistics.median(each) for each in seconds]
    table = [
        [count, sizes[place], median[place], sum(spent[place]), *spent[place], statistics.mean(wal[place])]
        for place, count in enumerate(counts)
    ]
    note = (
        f"{rounds} newsletters of {len(newsletter(1)):,} octets, each to all databases in turn, right after a checkpoint: the first"
        " change of each page writes the whole page to the WAL. ms: from the hand-over to the answer, medians; CPU: means."
    )
    head = ["rows", "database MB", "ms", "CPU ms", "worker", "PostgreSQL", "WAL octets"]
    few, many = sum(spent[0]), sum(spent[-1])
    return Report(
        [Table("Rows that are there already", head, table, note)],
        [
            Aim(f"CPU of a message at {rows:,} rows, of that at {counts[0]:,}", many / few, 1.2),
            Aim(f"time of a message at {rows:,} rows, of that at {counts[0]:,}", median[-1] / median[0], 1.2),
        ],
    )


def _fill(setting: Setting, database: Database, rows: int) -> None:
    """Insert the rows without fsync, foreign keys and indexes, and restore these afterwards."""
    _fsync(setting, "off")
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica; SET maintenance_work_mem = '1GB'")
        relations = [f"pipehandler.{table}" for table in _TABLES]
        connection.execute("UPDATE pg_index SET indisready = false WHERE indrelid = ANY (%s::regclass[])", [relations])
        for statement in _FILL:
            connection.execute(statement, {"rows": rows})
        for table in _TABLES:
            connection.execute(sql.SQL("REINDEX TABLE pipehandler.{}").format(sql.Identifier(table)))
        connection.execute("VACUUM ANALYZE")
    _fsync(setting, "on")


def _fsync(setting: Setting, value: str) -> None:
    setting.server.psql("postgres", f"ALTER SYSTEM SET fsync = {value}")
    setting.server.reload()
    if value == "on":  # flush what was written without fsync before the measurement starts
        setting.server.psql("postgres", "CHECKPOINT")
        setting.sync()
