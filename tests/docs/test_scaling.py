"""docs/scaling.md: its commands, on databases of their own; where a command names a server, the place of one is put in."""

import re
import shlex
from contextlib import ExitStack
from pathlib import Path

from click.testing import CliRunner
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.shards import Shards

from pipehandler.cli import cli

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
COMMANDS = [
    shlex.split(command.replace("\\\n", " "))[1:]
    for block in re.findall(r"^ *```text\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    for command in re.findall(r"^ *(pipehandler (?:.*\\\n)*.*)$", block, re.MULTILINE)
]


def test_commands(shards: Shards) -> None:
    """The proxy of two shards is made, checked, read by address and number, and told that a shard has moved."""
    with ExitStack() as stack:
        servers = [shards.proxy.server, *(shard.server for shard in shards.of[:2])]
        proxy, first, second = (stack.enter_context(Database.fresh(server)) for server in servers)
        places = {"proxy": proxy, "db0": first, "db1": second, "db2": second}
        handler = Handler(stack.enter_context(account.folder("pipehandler-")), proxy.conninfo)
        handler.configure(proxy.conninfo, database={"admin_conninfo": proxy.admin})

        def run(words: list[str]) -> tuple[int, str]:
            """Run a command, with the places of these servers; return its status and what it printed."""
            put = [re.sub(r"host=(\w+) .*", lambda found: places[found[1]].admin, word) for word in words]
            done = CliRunner().invoke(cli, ["--config", str(handler.config), *put])
            return done.exit_code, done.output

        kinds = [next(word for word in each if word in ("migrate", "check", "list", "quarantine")) for each in COMMANDS]
        assert kinds == ["migrate", "check", "list", "quarantine", "migrate"]
        make, check, by_address, by_number, move = COMMANDS
        status, output = run(make)
        assert status == 0, output
        message = b"Message-ID: <1@example.org>\n\nfirst\n"
        assert handler.deliver(message, "user@example.com").status == 0
        findings = run(check)[1]
        assert not re.findall(r"^shard-(?!fsync|full-page)\S+:.*", findings, re.MULTILINE)
        status, output = run(by_address)
        assert (status, "user@example.com" in output) == (0, True), output
        assert run(by_number)[0] == 0
        status, output = run(move)
        assert status == 0, output
        assert handler.deliver(message, "user@example.com").output.startswith("2.0.0 stored before")
