"""`pipehandler postfix`: the example files, filled in for an installation."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipehandler.cli import cli
from pipehandler.postfix.templates import CLIENT_LINES, CODE, FILES, Installation, lines
from pipehandler.settings.config import Web

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = files("pipehandler") / "examples"
USUAL = Installation(
    "/opt/pipehandler/bin/python",
    "/opt/pipehandler/lib/python3.11/site-packages",
    "/opt/pipehandler/bin/pipehandler",
)


def usual(name: str) -> str:
    """The file `name` with the usual values of an installation."""
    return lines(
        name,
        user="pipehandler",
        config="/etc/pipehandler/pipehandler.toml",
        socket="/run/pipehandler/socket",
        config_directory="/etc/postfix",
        domain="example.com",
        maxproc=20,
        installation=USUAL,
    )


@pytest.mark.parametrize("name", [name for name, folder in FILES.items() if folder == "postfix"])
def test_examples_in_the_repository(name: str) -> None:
    """postfix/*.example are the templates with the usual values."""
    assert (REPOSITORY / "postfix" / f"{name}.example").read_text() == usual(name)


def test_nothing_else_is_in_the_folders() -> None:
    """Every template is printed by the command, and postfix/ holds an example of each one for Postfix. What builds a container
    needs the clone, and is no template."""
    shipped = {file.name: folder.name for folder in EXAMPLES.iterdir() for file in folder.iterdir()}
    for_a_clone = dict.fromkeys(("Containerfile", "mail-host"), "container")
    assert shipped == FILES | for_a_clone
    assert {file.name for file in (REPOSITORY / "postfix").iterdir()} == {
        f"{name}.example" for name, folder in FILES.items() if folder == "postfix"
    }


@pytest.mark.parametrize("name", FILES)
def test_only_places_are_filled_in(name: str) -> None:
    """Text that happens to equal a usual value is kept, and so are filled-in values, whatever they look like."""
    template = (EXAMPLES / FILES[name] / name).read_text("utf-8")
    filled = lines(
        name,
        user="@{domain}",
        config="/c/@{user}/$HOME",
        socket="/s/${sender}",
        config_directory="/d",
        domain="x.test",
        maxproc=7,
        database="postgresql:///x%20y?host=/pg",
        delimiter="+-",
        log_file="/l",
        client=("/ld", "/cl", "--packages=/e"),
        lmtp="/r/lmtp",
        web=Web(listen="/r/web", hosts=("inbox.test",)),
        installation=Installation("/py", "/e", "/p"),
    )
    values = {
        "client": CLIENT_LINES.format("/ld /cl --packages=/e"), "python": "/py", "packages": "/e", "code": CODE, "program": "/p", "user": "@{domain}", "config": "/c/@{user}/$HOME",
        "socket": "/s/${sender}", "config_directory": "/d", "domain": "x.test", "maxproc": "7",
        "database": "postgresql:///x%20y?host=/pg", "database_name": "x y", "delimiter": "'+-'", "log_file": "/l",
        "lmtp": "/r/lmtp", "web_listen": "unix:/r/web", "web_host": "inbox.test",
    }  # fmt: skip
    parts = re.split(r"@\{([a-z_]+)\}", template)
    assert filled == "".join(values[part] if number % 2 else part for number, part in enumerate(parts))


@pytest.mark.parametrize("name", ["master.cf", "lmtp.master.cf"])
def test_appended_to_an_unfinished_line(name: str) -> None:
    """What the pages append to master.cf does not become part of its last line, if that has no line break."""
    assert f"argv=/bin/true{usual(name)}".startswith("argv=/bin/true\n")


def test_help_names_every_file() -> None:
    """The help of the command lists the files."""
    text = CliRunner().invoke(cli, ["postfix", "--help"]).stdout
    assert set(re.findall(r"[\w-]+[._][\w.-]*\w", text)) >= set(FILES)


def test_all() -> None:
    """Without a name every file is printed, under its name."""
    done = CliRunner().invoke(cli, ["postfix"])
    assert done.exit_code == 0
    assert re.findall(r"^##### (.*)$", done.stdout, re.MULTILINE) == list(FILES)
    assert "@{" not in done.stdout
