"""A server that is kept for many runs of the tests: starting one costs more than most of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from harness.database import Database
from harness.postgresql import FAST, VERSION, PostgreSQL
from psycopg import sql

from pipehandler.store.sql_files import Code, code

_STATE = """
SELECT (SELECT jsonb_agg(r ORDER BY r.oid) FROM pg_authid r), (SELECT jsonb_agg(m ORDER BY m.roleid, m.member) FROM pg_auth_members m),
       (SELECT jsonb_agg(s) FROM pg_db_role_setting s WHERE s.setdatabase = 0),
       (SELECT jsonb_agg(f) FROM pg_file_settings f)
"""
"""The objects that tests share on one server, apart from their own databases."""


class KeptServer:
    """A server in a folder, with the template of Database.fresh. `renew` after each run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._start()

    @property
    def folder(self) -> Path:
        """For harness.postgresql.KEPT."""
        return self._server.folder

    def _start(self) -> None:
        self._number += 1
        self._server = PostgreSQL(self._folder / str(self._number), VERSION, FAST).start()
        with Database.fresh(self._server):
            pass
        self._state = self._observed()

    def _observed(self) -> object:
        with psycopg.connect(self._server.conninfo(), autocommit=True) as connection:
            return connection.execute(_STATE).fetchone()

    def renew(self) -> None:
        """Remove what the tests have left; start another server if they have changed this one."""
        try:
            with psycopg.connect(self._server.conninfo(), autocommit=True) as connection:
                left = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'migrated', 'original') AND NOT datistemplate"
                for (name,) in connection.execute(left).fetchall():
                    connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            if self._observed() == self._state:
                return
        except psycopg.Error:
            pass
        self.stop()
        self._start()

    @contextmanager
    def with_code(self, name: str, statements: str) -> Iterator[bool]:
        """Another text of one file of sql/code in the template; yields whether PostgreSQL accepts it."""
        files = tuple((each, statements if each == name else text) for each, text in code().files)
        with psycopg.connect(self._server.conninfo(), autocommit=True) as connection:
            connection.execute("ALTER DATABASE migrated RENAME TO original")
            connection.execute(f"CREATE DATABASE migrated TEMPLATE original {self._server.copying}".encode())
        try:
            try:
                with psycopg.connect(self._server.conninfo("migrated")) as connection:
                    connection.execute("SET search_path = pg_catalog, pg_temp")
                    connection.execute(Code(code().version, files).script().encode())
            except psycopg.Error:
                yield False
            else:
                yield True
        finally:
            with psycopg.connect(self._server.conninfo(), autocommit=True) as connection:
                connection.execute("DROP DATABASE migrated WITH (FORCE)")
                connection.execute("ALTER DATABASE original RENAME TO migrated")

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()
