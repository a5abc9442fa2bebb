"""`pipehandler postfix pgsql-recipients.cf`: the table of recipients, with the database and the delimiter of the configuration."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipehandler.cli import cli
from pipehandler.mail.sysexits import EX_CONFIG

TIMES = (
    "&user=postfix&connect_timeout=3&tcp_user_timeout=5000"
    "&keepalives_idle=3&keepalives_interval=1&keepalives_count=3&options=-cstatement_timeout%3D5000"
)


def table(config: Path, status: int = 0) -> dict[str, str]:
    """The parameters of the table, as Postfix reads them."""
    done = CliRunner().invoke(cli, ["--config", str(config), "postfix", "pgsql-recipients.cf"])
    assert done.exit_code == status
    text = re.sub(r"\n[ \t]+", " ", "\n".join(line for line in done.stdout.splitlines() if not line.startswith("#")))
    return {
        name.strip(): value.strip() for name, _, value in (line.partition("=") for line in text.splitlines() if line)
    }


@pytest.mark.parametrize(
    ("conninfo", "uri", "dbname"),
    [
        ("host=/run/pg dbname=mail", "postgresql:///mail?host=/run/pg", "mail"),
        ("dbname=mail user=pipehandler", "postgresql:///mail?host=/run/postgresql", "mail"),
        (
            "postgresql://pipehandler:secret@a:5433,b/in%20box?sslmode=verify-full&passfile=/etc/secret",
            "postgresql:///in%20box?host=a%2Cb&port=5433%2C&sslmode=verify-full",
            "in box",
        ),
    ],
)
def test_database(tmp_path: Path, conninfo: str, uri: str, dbname: str) -> None:
    """It queries the handler's database, under a separate role and without the handler's secrets; the server is listed
    twice, for after a restart."""
    config = tmp_path / "pipehandler.toml"
    config.write_text(f"database.conninfo = '{conninfo}'\n")
    assert table(config) == {
        "hosts": f"{uri}{TIMES} {uri}{TIMES}",
        "dbname": dbname,
        "query": "SELECT pipehandler.lookup('%s', '+')",
    }


def test_delimiter(tmp_path: Path) -> None:
    """The delimiter is quoted for SQL and for pgsql_table(5)."""
    config = tmp_path / "pipehandler.toml"
    config.write_text('recipients.delimiter = "+-\'%"\n')
    assert table(config)["query"] == "SELECT pipehandler.lookup('%s', '+-''%%')"


def test_without_a_configuration(tmp_path: Path) -> None:
    """It can be printed before there is a configuration; an invalid one is an error."""
    config = tmp_path / "pipehandler.toml"
    assert table(config)["dbname"] == "mail"
    config.write_text("recipients.policy = 'some'\n")
    assert table(config, EX_CONFIG) == {}
