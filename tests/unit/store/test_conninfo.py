"""Connection strings: as key=value pairs and as URIs, with the same result."""

import os
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from pipehandler.mail.outcome import MISCONFIGURED
from pipehandler.store.conninfo import for_user, has_secret, is_local, parameters, uri
from pipehandler.store.errors import StoreError


@pytest.mark.parametrize(
    ("conninfo", "expected"),
    [
        ("dbname=mail user=pipehandler", {"dbname": "mail"}),
        ("dbname='my mail' user = a password = 'se\\'cret' passfile=/p", {"dbname": "my mail"}),
        ("host=/run/x port=5433 dbname=mail", {"host": "/run/x", "port": "5433", "dbname": "mail"}),
        ("postgresql://a:secret@h1:1,h2:2/mail", {"host": "h1,h2", "port": "1,2", "dbname": "mail"}),
        ("postgresql:///mail?host=/run/x&user=a&password=secret", {"host": "/run/x", "dbname": "mail"}),
        ("dbname=mail sslpassword=secret sslcert=/c", {"dbname": "mail", "sslcert": "/c"}),
    ],
)
def test_for_user(conninfo: str, expected: dict[str, str]) -> None:
    """The string for another user keeps everything but the user and the credentials."""
    assert conninfo_to_dict(for_user(conninfo, "the owner")) == {**expected, "user": "the owner"}


@pytest.mark.parametrize(
    ("conninfo", "secret"),
    [
        ("dbname=mail user=password", False),
        ("dbname=mail passfile=/password", False),
        ("dbname=mail password=x", True),
        ("dbname=mail password = 'x y'", True),
        ("dbname=mail password=''", False),
        ("dbname=mail sslpassword=x", True),
        ("postgresql://user@host/mail", False),
        ("postgresql://user:x@host/mail", True),
        ("postgres://host/mail?password=x", True),
        ("postgresql://host:5432/mail?application_name=a:b@c", False),
        ("not a conninfo", False),
        ("", False),
    ],
)
def test_has_secret(conninfo: str, secret: bool) -> None:
    """A password is found in any form that libpq accepts, and nothing else is mistaken for one."""
    assert has_secret(conninfo) == secret


@pytest.mark.parametrize(
    ("conninfo", "local"),
    [
        ("dbname=mail", True),
        ("host=/run/postgresql dbname=mail", True),
        ("host=@abstract dbname=mail", True),
        ("host=/a,/b dbname=mail", True),
        ("host=localhost dbname=mail", False),
        ("host=/a,db.example.net dbname=mail", False),
        ("hostaddr=127.0.0.1 dbname=mail", False),
        ("postgresql:///mail", True),
        ("postgresql://user@%2Frun%2Fpostgresql/mail", True),
        ("postgresql://user@db.example.net/mail", False),
    ],
)
def test_is_local(conninfo: str, local: bool) -> None:
    """Only sockets of this host are local."""
    assert is_local(conninfo) == local


def test_uri() -> None:
    """A URI for other programs has no user and no secret."""
    assert uri("host=/run/x user=a password=secret dbname='my mail'") == "postgresql:///my%20mail?host=/run/x"
    assert uri("dbname=mail") == "postgresql:///mail?host=/run/postgresql"
    assert uri("host=db.example.net") == "postgresql:///?host=db.example.net"
    assert uri("postgresql://a:secret@h1:1,h2:2/mail") == "postgresql:///mail?host=h1%2Ch2&port=1%2C2"


def test_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameters of a service count like the string itself, which takes precedence; its password is kept secret
    like any other."""
    file = tmp_path / "pg_service.conf"
    file.write_text(
        "[mail]\nhost=db.example.net\nport=5433\ndbname=post\nuser=a\npassword=secret\n[local]\ndbname=post\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert parameters("service=mail dbname=mail") == {
        "service": "mail",
        "host": "db.example.net",
        "port": "5433",
        "dbname": "mail",
        "user": "a",
        "password": "secret",
    }
    assert parameters("service=local") == {"service": "local", "dbname": "post"}
    assert parameters("service=none") == {"service": "none"}
    assert uri("service=mail") == "postgresql:///post?host=db.example.net&port=5433"
    assert not is_local("service=mail")
    assert is_local("service=local")
    assert "secret" not in for_user("service=mail", "b")
    assert "PGSERVICE" not in os.environ
    monkeypatch.setenv("PGSERVICE", "mail")
    assert parameters("dbname=x")["host"] == "db.example.net"
    assert os.environ["PGSERVICE"] == "mail"


@pytest.mark.parametrize("function", [uri, is_local, lambda conninfo: for_user(conninfo, "a")])
def test_not_a_conninfo(function: object) -> None:
    """A string that libpq cannot parse is a configuration error, with libpq's reason."""
    assert callable(function)
    with pytest.raises(StoreError, match=r"not a libpq connection string: .*what") as raised:
        function("what")
    assert raised.value.outcome == MISCONFIGURED
