"""`pipehandler check` against servers that speak English, German and Japanese: the same refusals have the same codes."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from harness import account
from harness.handler import Handler
from harness.missing import missing
from harness.postgresql import DEBIAN, FAST, PostgreSQL

from pipehandler.cli import cli

VERSION = DEBIAN  # which has the translations
LANGUAGES = {"C": "C", "de_DE": "existiert nicht", "ja_JP": "存在しません"}
"""Each locale, and the server's message in it that a role does not exist; C: in English."""


@pytest.fixture(scope="module", params=LANGUAGES)
def server(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    """A server that speaks the language."""
    language = request.param
    with account.folder("pipehandler-language-") as folder, pytest.MonkeyPatch.context() as patch:
        if language != "C":
            if not shutil.which("localedef") or not Path("/usr/share/i18n/locales", language).exists():
                missing(f"the locale {language}")
            locale = str(folder / f"{language}.UTF-8")
            subprocess.run(
                ["localedef", "-i", language, "-f", "UTF-8", "--no-archive", locale], check=True, capture_output=True
            )
            patch.setenv("LOCPATH", str(folder))
        name = language if language == "C" else f"{language}.UTF-8"
        settings = {**FAST, "lc_messages": name, "max_connections": "10", "superuser_reserved_connections": "2"}
        with PostgreSQL(folder / "server", VERSION, settings) as server:
            server.start()
            hba = server.data / "pg_hba.conf"
            rules = "local all rejected reject\nlocal all secret,nopassword scram-sha-256\nlocal other peered peer\n"
            hba.write_text(rules + hba.read_text())
            server.reload()
            with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
                for statement in (
                    *(
                        "CREATE DATABASE mail",
                        "CREATE DATABASE closed ALLOW_CONNECTIONS false",
                        "CREATE DATABASE private",
                    ),
                    *(
                        "CREATE DATABASE full_database CONNECTION LIMIT 0",
                        "REVOKE CONNECT ON DATABASE private FROM PUBLIC",
                    ),
                    *(
                        "CREATE ROLE handler LOGIN",
                        "CREATE ROLE nologin",
                        "CREATE ROLE rejected LOGIN",
                        'CREATE ROLE "odd \'na""me"',
                    ),
                    *(
                        "CREATE ROLE secret LOGIN PASSWORD 'x'",
                        "CREATE ROLE nopassword LOGIN",
                        "CREATE ROLE full_role LOGIN CONNECTION LIMIT 0",
                    ),
                ):
                    admin.execute(statement)
                language_of_server = LANGUAGES[language]
            if language != "C":
                with pytest.raises(psycopg.OperationalError, match=language_of_server):
                    psycopg.connect(server.conninfo("mail", user="nobody9"))
            yield server


@contextmanager
def nothing(server: PostgreSQL) -> Iterator[None]:
    """No preparation."""
    assert server
    yield


@contextmanager
def taken(server: PostgreSQL) -> Iterator[None]:
    """All connections are in use."""
    with ExitStack() as stack, suppress(psycopg.OperationalError):
        try:
            while True:
                stack.enter_context(psycopg.connect(server.conninfo("mail", user="handler")))
        except psycopg.OperationalError:
            yield


@contextmanager
def stopping(server: PostgreSQL) -> Iterator[None]:
    """The server waits for its last session before it stops, and accepts no new ones."""
    with psycopg.connect(server.conninfo("mail", user="handler")) as last:
        assert server._server is not None
        server._server.send_signal(signal.SIGTERM)
        with suppress(psycopg.OperationalError):
            while True:
                psycopg.connect(server.conninfo("mail", user="handler")).close()
        yield
        last.close()
    server._server.wait(60)
    server.start()


REFUSALS: dict[str, tuple[str, str, str, str, Callable[[PostgreSQL], object]]] = {
    "no such role": (
        "mail",
        "nobody9",
        "role-missing",
        "CREATE ROLE nobody9 LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT 30;",
        nothing,
    ),
    "role without login": ("mail", "nologin", "role-nologin", "ALTER ROLE nologin LOGIN;", nothing),
    "odd name": ("mail", "odd 'na\"me", "role-nologin", 'ALTER ROLE "odd \'na""me" LOGIN;', nothing),
    "no such database": ("nosuch", "handler", "database-missing", "CREATE DATABASE nosuch;", nothing),
    "rejected": ("mail", "rejected", "authentication", "# in ", nothing),
    "no password": ("mail", "secret", "authentication", "# give root a passfile", nothing),
    "wrong password": ("mail", "secret password=wrong", "authentication", "# in ", nothing),
    "role without password": ("mail", "nopassword password=x", "authentication", "# in ", nothing),
    "limit of the role": ("mail", "full_role", "connections", "ALTER ROLE full_role CONNECTION LIMIT 30;", nothing),
    "limit of the database": (
        "full_database",
        "handler",
        "connections",
        "ALTER DATABASE full_database CONNECTION",
        nothing,
    ),
    "limit of the server": ("mail", "handler", "connections", "ALTER SYSTEM SET max_connections", taken),
    "no right to connect": ("private", "handler", "rights-too-few", "GRANT CONNECT ON DATABASE private", nothing),
    "closed database": (
        "closed",
        "handler",
        "database-closed",
        "ALTER DATABASE closed ALLOW_CONNECTIONS true;",
        nothing,
    ),
    "not yet, or no longer": ("mail", "handler", "database-starting", "# wait until the server has started", stopping),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refusal(folder: Path, server: PostgreSQL, what: str) -> None:
    """A refusal is recognised independently of the language, and its fix names the role or the database."""
    database, user, code, fix, prepared = REFUSALS[what]
    name, _, more = user.partition(" password=")
    quoted = name.replace("'", "\\'")
    conninfo = f"{server.conninfo(database)} user='{quoted}'" + (f" password={more}" if more else "")
    handler = Handler(folder, conninfo)
    with prepared(server):  # type: ignore[attr-defined]
        done = CliRunner().invoke(cli, ["--config", str(handler.config), "check", "--part", "handler", "--json"])
    found = json.loads(done.stdout)
    assert [finding["code"] for finding in found if finding["code"] not in ("state-directory", "password-exposed")] == [
        code
    ]
    (finding,) = [finding for finding in found if finding["code"] == code]
    assert finding["fix"].startswith(fix)
    if fix == "# in ":  # the role is the account's own, or it may be used by the account
        assert "database.conninfo: user=root, the role of the account" in finding["fix"]
        assert f"local all {name} peer map=pipehandler" in finding["fix"]


def test_peer(folder: Path, server: PostgreSQL) -> None:
    """If the server authenticates the client, a missing role and one that may not log in look the same; one line fixes
    both."""
    hba = server.data / "pg_hba.conf"
    before = hba.read_text()
    who = "root" if os.geteuid() == 0 else account.NAME
    hba.write_text(f"local mail postgres trust\nlocal mail all peer\n{before}")
    server.reload()
    handler = Handler(folder, server.conninfo("mail", user=who))
    command = ["--config", str(handler.config), "check", "--part", "handler", "--json"]
    try:
        for statement in ("SELECT", f"CREATE ROLE {who}"):
            with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
                admin.execute("CREATE ROLE pipehandler_ingest" if statement == "SELECT" else statement)
            (finding,) = [
                each
                for each in json.loads(CliRunner().invoke(cli, command).stdout)
                if each["code"] != "state-directory"
            ]
            assert finding["code"] == "role-missing"
            with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
                admin.execute(finding["fix"])
                assert admin.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [who]).fetchall() == [
                    (True,)
                ]
                admin.execute(f"DROP ROLE {who}")
    finally:
        hba.write_text(before)
        server.reload()
