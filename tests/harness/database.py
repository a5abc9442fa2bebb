"""A database for one test: empty, migrated, with the login role of a handler."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from pipehandler.store.connection import Store
from pipehandler.store.migrate import migrate

from .postgresql import PostgreSQL

CONNECTIONS = 87
"""The connection limit of the handler's role: max_connections (100) without 3 for superusers and 10 for others."""

_numbers = itertools.count(1)


def close_public(server: PostgreSQL, name: str) -> None:
    """Let only its owner create objects in the schema public of a database, as docs/install.md has it before PostgreSQL
    15; later versions create databases so."""
    if server.version < 15:
        with psycopg.connect(server.conninfo(name), autocommit=True) as owner:
            owner.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


class Database:
    """One database. `admin` is the conninfo of its owner, `conninfo` that of the handler's role."""

    def __init__(self, server: PostgreSQL, name: str) -> None:
        self.name = name
        self.move(server)

    def move(self, server: PostgreSQL) -> None:
        """Switch to this server: the other one died, and its standby was promoted."""
        self.server = server
        self.admin = server.conninfo(self.name)
        self.conninfo = server.conninfo(self.name, user="pipehandler")

    @classmethod
    @contextmanager
    def fresh(cls, server: PostgreSQL, logins: bool = True) -> Iterator["Database"]:
        """A new migrated database, dropped at the end. logins: create the login roles that the tests use, if it is the
        first database on its server."""
        database = cls(server, f"mail{next(_numbers)}")
        name = sql.Identifier(database.name)
        with psycopg.connect(server.conninfo(), autocommit=True) as maintenance:
            # The migrated template is created once per server; then each database is a copy of its files (faster than
            # WAL).
            if not maintenance.execute("SELECT 1 FROM pg_database WHERE datname = 'migrated'").fetchone():
                maintenance.execute("CREATE DATABASE migrated")
                store = Store(server.conninfo("migrated"), statement_timeout=100)
                migrate(store)
                store.close()
                close_public(server, "migrated")
                if logins:
                    maintenance.execute(
                        f"CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT {CONNECTIONS}"
                    )
                    maintenance.execute("CREATE ROLE reader LOGIN IN ROLE pipehandler_reader")
                    maintenance.execute("CREATE ROLE upkeep LOGIN IN ROLE pipehandler_maintenance")
                    maintenance.execute("CREATE ROLE lessor LOGIN IN ROLE pipehandler_address_admin")
                    maintenance.execute("CREATE ROLE postfix LOGIN IN ROLE pipehandler_lookup")
                    maintenance.execute("CREATE ROLE page LOGIN IN ROLE pipehandler_web")
            maintenance.execute(sql.SQL(f"CREATE DATABASE {{}} TEMPLATE migrated {server.copying}").format(name))
            # As docs/install.md has it.
            maintenance.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
        yield database
        # Another connection: the test may have restarted the server.
        with psycopg.connect(database.server.conninfo(), autocommit=True) as maintenance:
            maintenance.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def rows(self, statement: str, *parameters: Any) -> list[Any]:
        """The rows that a statement of the owner returns, as named tuples."""
        with psycopg.connect(self.admin, autocommit=True, row_factory=namedtuple_row) as connection:
            return connection.execute(statement, parameters or None).fetchall()

    def value(self, statement: str, *parameters: Any) -> Any:
        """The one value that a statement returns."""
        ((value,),) = self.rows(statement, *parameters)
        return value

    def execute(self, statement: str, *parameters: Any) -> None:
        """Run a statement as the owner."""
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(statement, parameters or None)
