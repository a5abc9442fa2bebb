"""The names that setup is given."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipehandler.setup.host import Host, checked_name, normalized
from pipehandler.setup.server import EMBEDDED_ACCOUNT, EMBEDDED_FOLDER, Server, embedded_server
from pipehandler.setup.step import SetupError, here_document, output


@pytest.mark.parametrize(
    ("given", "domains"),
    [
        ("example.com", ("example.com",)),
        (" Example.COM. ", ("example.com",)),
        ("bücher.example", ("xn--bcher-kva.example", "bücher.example")),
        ("xn--bcher-kva.example", ("xn--bcher-kva.example", "bücher.example")),
        ("BÜCHER.example", ("xn--bcher-kva.example", "bücher.example")),
        ("日本語。example", ("xn--wgv71a119e.example", "日本語.example")),
        # U-labels of which RFC 3490 makes other A-labels, or none
        ("xn--strae-oqa.example", ("xn--strae-oqa.example",)),
        ("xn--a.example", ("xn--a.example",)),
        ("xn--example.com", ("xn--example.com",)),
    ],
)
def test_domains(given: str, domains: tuple[str, ...]) -> None:
    """Postfix does not know that an A-label and a U-label are one domain, so it gets both."""
    assert normalized(given) == domains


@pytest.mark.parametrize(
    "given",
    [
        "",
        "localhost",
        "a,b.example",
        "a.example b.example",
        "@a.example",
        "-a.example",
        "a..b",
        "x" * 64 + ".org",
        "example.com..",
        "192.0.2.1",
        "xn--zzzzzz.org",
    ],
)
def test_not_a_domain(given: str) -> None:
    """A value that is not a single domain is refused, and named."""
    with pytest.raises(SetupError, match="is not a domain; give --domain once for each"):
        normalized(given)


@pytest.mark.parametrize(
    ("given", "present", "former"),
    [
        ("Straße.example", "xn--strae-oqa.example", "strasse.example"),
        ("βόλος.example", "xn--nxasmm1c.example", "xn--nxasmq6b.example"),
        ("नी\u200d.example", "xn--l2b2c924h.example", "xn--l2b2c.example"),
    ],
)
def test_two_domains(given: str, present: str, former: str) -> None:
    """Of a name that the two standards of IDN take for different domains, the operator chooses; both can be named."""
    with pytest.raises(SetupError, match=f"is {present} by the present standard and {former} by the former one"):
        normalized(given)
    assert normalized(present) == (present,)
    assert normalized(former)[0] == former


@pytest.mark.parametrize("given", ["", "a b", "Mail", "a;b", "'", "x" * 32])
def test_not_a_name(given: str) -> None:
    """A name that SQL or a shell would have to quote is refused."""
    with pytest.raises(SetupError, match="is not a name for a database"):
        checked_name(given, "a database")


def test_configuration_decides(tmp_path: Path) -> None:
    """The database in a configuration file takes precedence over the defaults."""
    config = tmp_path / "pipehandler.toml"
    host = Host(config=str(config))
    assert host.with_settings() == host
    config.write_text('database.conninfo = "host=db.example.net port=5433 dbname=other user=handler"')
    found = host.with_settings()
    assert (found.database, found.server.is_local, found.server.conninfo) == (
        "other",
        False,
        "host=db.example.net port=5433",
    )
    config.write_text(f'database.conninfo = "host={EMBEDDED_FOLDER}/socket dbname=mail user=handler"')
    assert host.with_settings().server.account == EMBEDDED_ACCOUNT
    assert host.with_settings().embedded == EMBEDDED_FOLDER


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"database": "post"}, "(other) than that of the options (post)"),
        ({"server": Server("host=/run/postgresql port=5433")}, "(host=/run/postgresql) than that of the options"),
        ({"server": embedded_server(), "embedded": EMBEDDED_FOLDER}, EMBEDDED_FOLDER),
    ],
)
def test_options_that_name_another_database(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    """They are not ignored: both places are named, and the ways out."""
    config = tmp_path / "pipehandler.toml"
    host = Host(config=str(config), **options)
    config.write_text('database.conninfo = "host=/run/postgresql dbname=other user=handler"')
    with pytest.raises(SetupError, match=re.escape(named)):
        host.with_settings()
    config.write_text(f'database.conninfo = "{host.server.conninfo} dbname={host.database} user=handler"')
    assert host.with_settings().database == host.database


@pytest.mark.parametrize("text", ["", "nonsense", "[log]\n", "database.conninfo = 'nonsense'"])
def test_unusable_configuration(tmp_path: Path, text: str) -> None:
    """A configuration that cannot be used, or names no database, is reported and left unchanged."""
    config = tmp_path / "pipehandler.toml"
    config.write_text(text)
    with pytest.raises(SetupError):
        Host(config=str(config)).with_settings()
    assert config.read_text() == text


def test_here_document(tmp_path: Path) -> None:
    """No character of a text is interpreted by the shell."""
    text = "a $HOME `id` \\ 'x' \"y\"\n"
    assert output(["sh", "-c", here_document(str(tmp_path / "a file"), text)]) == ""
    assert (tmp_path / "a file").read_text() == text
