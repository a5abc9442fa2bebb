"""Databases of the previous release: its files of sql/schema, applied as it applied them, and the statements of its
programs, which tests/previous_release has; and its source, from the history of this repository.

The statements are recorded with harness/recorded.py: fill.jsonl stores mail of every kind, use.jsonl is every command
once. Before a release both are recorded again with the version that is about to become the previous one, and COMMIT
becomes that of its tag.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import psycopg

from .database import Database, close_public
from .missing import missing
from .postgresql import PostgreSQL
from .recorded import replay

COMMIT = "1f788eda59b19b0c42558a8a168039223eb09d8b"
"""Its commit, 0.1.0."""

FILES = 11
"""The number of its files in sql/schema."""

_ROOT = Path(__file__).parent.parent.parent
_RECORDED = _ROOT / "tests" / "previous_release"

_TABLE = """
CREATE SCHEMA pipehandler;
CREATE TABLE pipehandler.migration (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE pipehandler.migration IS 'The SQL files that were applied to this schema, recorded by pipehandler migrate.';
"""

_LOGINS = """
CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest;
CREATE ROLE reader LOGIN IN ROLE pipehandler_reader;
CREATE ROLE upkeep LOGIN IN ROLE pipehandler_upkeep;
CREATE ROLE owner_of_leases LOGIN IN ROLE pipehandler_lessor, pipehandler_reader;
"""


@contextmanager
def database(server: PostgreSQL, name: str, files: int = FILES) -> Iterator[Database]:
    """A database that the previous release migrated, through its file number `files`; dropped at the end.

    The first one on a server creates the login roles that the recordings use.
    """
    made = Database(server, name)
    with psycopg.connect(server.conninfo(), autocommit=True) as maintenance:
        maintenance.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        close_public(server, name)
        with psycopg.connect(made.admin) as owner:
            owner.execute(_TABLE)
            for path in sorted((_ROOT / "sql" / "schema").glob("*.sql"))[:files]:
                text = path.read_text("utf-8")
                owner.execute(text)
                owner.execute(
                    "INSERT INTO pipehandler.migration (version, name, checksum) VALUES (%s, %s, %s)",
                    [int(path.name[:4]), path.name, sha256(text.encode()).hexdigest()],
                )
        if files == FILES and not made.value("SELECT to_regrole('owner_of_leases') IS NOT NULL"):
            made.execute(_LOGINS)
        yield made
    finally:
        # Another connection: the test may have restarted the server.
        with psycopg.connect(server.conninfo(), autocommit=True) as maintenance:
            maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")


def source(folder: Path) -> Path:
    """Its files, in `folder`."""
    if subprocess.run(["git", "-C", _ROOT, "cat-file", "-e", COMMIT], capture_output=True).returncode:
        missing("the history of this repository (git)")
    archive = subprocess.run(["git", "-C", _ROOT, "archive", COMMIT], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


def send(database: Database, recording: str) -> list[str]:
    """Send a recording ("fill" or "use") to a database; returns the answers whose shape differs from the previous
    release's."""
    differences = []
    for sent, columns, rows in replay(
        _RECORDED / f"{recording}.jsonl", lambda user: database.server.conninfo(database.name, user=user)
    ):
        if (columns, rows) != (sent.columns, sent.rows):
            differences.append(f"{sent.statement}: {sent.columns}, {sent.rows} rows; now {columns}, {rows} rows")
    return differences
