"""`pipehandler check postfix` where mail is delivered by LMTP: each line of the example that is missing is found, and the
printed command brings it back."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner
from harness import account
from harness.database import Database
from harness.mailhost import MailHost

from pipehandler.cli import cli


@pytest.fixture(scope="module")
def whole(_postfix: None, stored: Database) -> Iterator[MailHost]:
    """A mail host that delivers by LMTP alone; not started."""
    with account.folder("pipehandler-mx-") as folder:
        host = MailHost(folder, stored.conninfo)
        host.postconf("-MX", "pipehandler/unix")
        host.postconf("-X", "pipehandler_destination_recipient_limit", "pipehandler_time_limit")
        host.use_lmtp()
        yield host


@pytest.fixture
def host(whole: MailHost) -> Iterator[MailHost]:
    """The same, for a test that breaks it: its files are put back afterwards."""
    before = {file: file.read_bytes() for file in [*whole.config.iterdir(), whole.handler.config]}
    yield whole
    for file, content in before.items():
        file.write_bytes(content)


def check(host: MailHost, *arguments: str) -> list[dict[str, str]]:
    """The findings about Postfix."""
    host.settle()
    command = [
        "--config",
        str(host.handler.config),
        "check",
        "--part",
        "postfix",
        "--config-directory",
        str(host.config),
        "--json",
    ]
    done = CliRunner().invoke(cli, [*command, *(arguments or ("--before-start",))])
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.stdout, done.output
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def postconf(*arguments: str) -> Callable[[MailHost], None]:
    """Change it with postconf."""

    def change(host: MailHost) -> None:
        assert not host.postconf(*arguments)

    return change


def option(setting: str) -> Callable[[MailHost], None]:
    """Set an option of the transport."""
    return postconf("-P", f"pipehandler-lmtp/unix/{setting}")


def handler(pattern: str, replacement: str) -> Callable[[MailHost], None]:
    """Change the configuration of the handler."""

    def change(host: MailHost) -> None:
        changed, count = re.subn(pattern, replacement, host.handler.config.read_text())
        assert count == 1
        host.handler.config.write_text(changed)

    return change


def flags(host: MailHost) -> None:
    """lmtp(8) prepends fields."""
    host.add("master.cf", "  flags=DOR\n")  # the transport is the last entry


BROKEN: dict[str, tuple[Callable[[MailHost], None], list[str]]] = {
    "lines are broken": (option("lmtp_line_length_limit=998"), ["lmtp-line-length-limit"]),
    "no envelope": (option("lmtp_send_xforward_command=no"), ["lmtp-send-xforward-command"]),
    "header checks": (option("lmtp_header_checks=regexp:/dev/null"), ["lmtp-changes"]),
    "flags": (flags, ["lmtp-changes"]),
    "no filter": (option("lmtp_delivery_status_filter="), ["status-filter"]),
    "another filter": (option("lmtp_delivery_status_filter=static:x"), ["status-filter"]),
    "reports of success": (option("lmtp_discard_lhlo_keywords="), ["lmtp-dsn"]),
    "short timeout": (option("lmtp_data_done_timeout=60s"), ["lmtp-timeout"]),
    "dead after one failure": (
        postconf("-X", "pipehandler-lmtp_destination_concurrency_failed_cohort_limit"),
        ["lmtp-cohort"],
    ),
    "endless processes": (postconf("-F", "pipehandler-lmtp/unix/process_limit=0"), ["lmtp-connections"]),
    "too many processes": (postconf("-F", "pipehandler-lmtp/unix/process_limit=101"), ["lmtp-connections"]),
    "chroot": (postconf("-F", "pipehandler-lmtp/unix/chroot=y"), ["chroot"]),
    "another socket": (postconf("-e", "virtual_transport=pipehandler-lmtp:unix:private/lmtp"), ["lmtp-route"]),
    "another transport": (postconf("-e", "virtual_transport=virtual"), ["transport-unused"]),
    "ORCPT is trusted": (handler(r"\[lmtp\]", "[lmtp]\ntrust_orcpt = true"), ["lmtp-orcpt", "lmtp-orcpt"]),
}


def test_nothing_to_find(whole: MailHost) -> None:
    """The lines that are printed are what check wants."""
    assert check(whole) == []


@pytest.mark.parametrize("what", BROKEN)
def test_broken(host: MailHost, what: str) -> None:
    """It is found, and its fix works."""
    change, codes = BROKEN[what]
    change(host)
    found = check(host)
    assert [finding["code"] for finding in found] == codes
    for finding in found:
        subprocess.run(["bash", "-euc", finding["fix"]], check=True, cwd="/", capture_output=True)
    assert check(host) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (handler(r"(?s)\[lmtp\]\nsocket.*$", ""), "lmtp-off"),
        (handler(r"\[lmtp\]", '[lmtp]\naccounts = ["nobody"]'), "lmtp-accounts"),
    ],
)
def test_configuration(host: MailHost, change: Callable[[MailHost], None], code: str) -> None:
    """What only the configuration can mend is said."""
    change(host)
    (finding,) = check(host)
    assert finding["code"] == code
    assert finding["fix"].startswith("# add ")


def test_nothing_listens(host: MailHost) -> None:
    """On a host that should run, somebody has to listen on the socket."""
    assert "lmtp-silent" in [finding["code"] for finding in check(host, "--json")]
