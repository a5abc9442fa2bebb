"""`pipehandler check` as root on a mail host: each part of a real installation is broken, found, fixed by the printed
command, and not found again."""

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import account, preloaded
from harness.database import CONNECTIONS, Database
from harness.handler import old_entrypoint
from harness.mailhost import MailHost
from harness.postgresql import PostgreSQL
from harness.preloaded import PROGRAM

from pipehandler.check.message_size import raise_message_size
from pipehandler.cli import cli
from pipehandler.postfix import client
from pipehandler.postfix.templates import PACKAGES
from pipehandler.settings.config import memory_needed
from pipehandler.settings.config_file import load


@pytest.fixture(scope="module")
def whole(_postfix: None, server: PostgreSQL) -> Iterator[MailHost]:
    """A mail host without findings; not started, because check reads only the configuration."""
    with account.folder("pipehandler-mx-") as folder, Database.fresh(server) as database:
        database.execute("SELECT pipehandler.lease_address('postmaster@example.com')")
        yield MailHost(folder, database.conninfo)


@pytest.fixture
def host(whole: MailHost) -> Iterator[MailHost]:
    """The same, for a test that breaks it: its files are put back afterwards."""
    files = [*whole.config.iterdir(), whole.handler.config]
    before = {file: (file.read_bytes(), file.stat()) for file in files}
    yield whole
    for file, (content, stat) in before.items():
        file.write_bytes(content)
        file.chmod(stat.st_mode)
        os.chown(file, stat.st_uid, stat.st_gid)
    for folder in (whole.folder, whole.handler.folder):
        folder.chmod(0o755)
    account.give(whole.handler.folder)
    whole.handler.state.mkdir(exist_ok=True)
    account.give(whole.handler.state)
    shutil.rmtree(whole.folder / "venv", ignore_errors=True)
    whole.handler.log.unlink(missing_ok=True)


def run(host: MailHost, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run check as a person does."""
    host.settle()
    return preloaded.run_text(*_command(host, arguments))


def _command(host: MailHost, arguments: tuple[str, ...]) -> list[str]:
    command = ["--config", str(host.handler.config), "check", "--config-directory", str(host.config), "--before-start"]
    return [*command, *arguments]


def check(host: MailHost, *arguments: str) -> list[dict[str, str]]:
    """The findings. In this process, which saves the start of an interpreter; the part that runs as the account is a
    separate process all the same."""
    host.settle()
    done = CliRunner().invoke(cli, _command(host, (*arguments, "--json")))
    assert isinstance(done.exception, SystemExit | None), done.exception
    found: list[dict[str, str]] = json.loads(done.stdout)
    assert done.exit_code == (1 if found else 0)
    return found


def codes(found: list[dict[str, str]]) -> list[str]:
    """The codes, in order."""
    return [finding["code"] for finding in found]


def apply_fixes(found: list[dict[str, str]]) -> None:
    """Run the fixes of the findings, as a person who pastes them."""
    for finding in found:
        assert not finding["fix"].startswith("#"), finding
        subprocess.run(["bash", "-euc", finding["fix"]], check=True, cwd="/")


def main(line: str) -> Callable[[MailHost], None]:
    """Set a parameter of main.cf."""

    def change(host: MailHost) -> None:
        file = host.config / "main.cf"
        others = [
            each for each in file.read_text().splitlines() if each.split("=")[0].strip() != line.split("=")[0].strip()
        ]
        file.write_text("\n".join([*others, line]) + "\n")

    return change


def unset(name: str) -> Callable[[MailHost], None]:
    """Remove a parameter from main.cf."""

    def change(host: MailHost) -> None:
        host.postconf("-X", name)

    return change


def master(pattern: str, replacement: str) -> Callable[[MailHost], None]:
    """Change the transport in master.cf."""

    def change(host: MailHost) -> None:
        file = host.config / "master.cf"
        changed, count = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
        assert count
        file.write_text(changed)

    return change


def argv(words: str) -> Callable[[MailHost], None]:
    """Let master.cf start the handler with `words`."""
    return master(r"(?s)argv=.*? deliver$", f"argv={words}")


def handler(**sections: dict[str, object]) -> Callable[[MailHost], None]:
    """Change the configuration."""
    return lambda host: host.handler.configure(_conninfo(host), **sections)


def both(*changes: Callable[[MailHost], None]) -> Callable[[MailHost], None]:
    """One change after the other."""

    def change(host: MailHost) -> None:
        for each in changes:
            each(host)

    return change


def _conninfo(host: MailHost) -> str:
    found = re.search(r'conninfo = "(.*)"', host.handler.config.read_text())
    assert found
    return found[1]


def filter_gone(host: MailHost) -> None:
    """The table of the status filter is missing."""
    (host.config / "pipehandler_status_filter").write_text("")


def filter_for_crashes_only(host: MailHost) -> None:
    """The table has only one of the two texts."""
    (host.config / "pipehandler_status_filter").write_text("/^5\\.3\\.0 (Command died.*)/ 4.3.0 ${1}\n")


def recipients(lookup: str, **keys: object) -> Callable[[MailHost], None]:
    """Addresses are looked up by this call, and the configuration has a setting for recipients."""

    def change(host: MailHost) -> None:
        handler(recipients={"policy": "known", **keys})(host)
        lines = host.lines("pgsql-recipients.cf")
        (host.config / "pgsql-recipients.cf").write_text(re.sub("lookup.*", lambda _: lookup, lines))
        main(f"virtual_mailbox_maps = proxy:pgsql:{host.config}/pgsql-recipients.cf")(host)

    return change


BROKEN: dict[str, tuple[Callable[[MailHost], None], list[str]]] = {
    # main.cf
    "several recipients": (main("pipehandler_destination_recipient_limit = 50"), ["recipient-limit"]),
    "time limit": (main("pipehandler_time_limit = 1m"), ["time-limit"]),
    "time limit, nonsense": (main("pipehandler_time_limit = soon"), ["time-limit"]),
    "short queue ids": (main("enable_long_queue_ids = no"), ["long-queue-ids"]),
    "size without a limit": (main("message_size_limit = 0"), ["message-size-limit"]),
    "size above ours": (main("message_size_limit = 60000000"), ["message-size-limit"]),
    "mailbox size": (main("mailbox_size_limit = 1000000"), ["mailbox-size-limit"]),
    "virtual mailbox size": (main("virtual_mailbox_limit = 1000000"), ["mailbox-size-limit"]),
    "queue lifetime": (main("maximal_queue_lifetime = 4h"), ["queue-lifetime"]),
    "queue lifetime 0": (main("maximal_queue_lifetime = 0"), ["queue-lifetime"]),
    "bounce queue lifetime": (main("bounce_queue_lifetime = 0"), ["queue-lifetime"]),
    "unknown parameter": (main("pipehandler_destination_recipient_limits = 1"), ["postfix-warning"]),
    "transport not used": (main("virtual_transport = lmtp:unix:x"), ["transport-unused"]),
    "a filter of all mail": (main("content_filter = pipehandler:"), ["content-filter"]),
    "a filter, and no other route": (
        both(main("content_filter = pipehandler:"), unset("virtual_transport")),
        ["content-filter"],
    ),
    "a filter of one service": (
        master(r"^(127.* inet .* smtpd)$", r"\1\n  -o content_filter=pipehandler:x"),
        ["content-filter"],
    ),
    "no domains": (main("virtual_mailbox_domains ="), ["domains-missing"]),
    "domain twice": (main("mydestination = localhost, example.com"), ["domain-twice"]),
    "domain twice, in upper case": (main("virtual_alias_domains = Example.COM"), ["domain-twice"]),
    "no queue directory": (main("queue_directory = /nonexistent"), ["queue-directory"]),
    "anybody is a recipient": (handler(recipients={"policy": "known"}), ["recipients-open"]),
    "no table of recipients": (
        both(main("virtual_mailbox_maps ="), handler(recipients={"policy": "known", "delimiter": "%'"})),
        ["recipients-open"],
    ),
    "another delimiter": (recipients("lookup('%s', '+')", delimiter="-"), ["recipients-delimiter"]),
    "a delimiter to be quoted": (recipients("lookup( '%s' )", delimiter="/'&\\%"), ["recipients-delimiter"]),
    # master.cf
    "chroot": (master(r"^(pipehandler unix  -       n       )n", r"\1y"), ["chroot"]),
    "chroot of pipe(8)": (master(" null_sender=", " chroot=/var null_sender="), ["chroot"]),
    "endless processes": (master("^(pipehandler .*)8 ", r"\g<1>0 "), ["maxproc"]),
    "another daemon": (master("^(pipehandler .*)pipe$", r"\1spawn"), ["transport-command"]),
    "From_": (master(" null_sender=", " flags=F null_sender="), ["flags-change-bytes"]),
    "dots": (master(" null_sender=", " flags=.> null_sender="), ["flags-change-bytes"]),
    "prepended fields": (master(" null_sender=", " flags=DOR null_sender="), ["flags-needless"]),
    "an empty line, and folding": (
        master(" null_sender=", " flags=Bhu null_sender="),
        ["flags-change-bytes", "flags-change-addresses"],
    ),
    "CRLF": (master(" null_sender=", r" eol=\\r\\n null_sender="), ["flags-change-bytes"]),
    "null sender": (master(" null_sender=$", ""), ["null-sender"]),
    "named null sender": (master(" null_sender=$", " null_sender=daemon"), ["null-sender"]),
    "no interpreter": (master(r"argv=\S+", "argv=/nonexistent/python"), ["interpreter-missing"]),
    "no package": (master(rf"{re.escape(PACKAGES)} deliver", "/no/site-packages deliver"), ["entrypoint-missing"]),
    "without -S": (master(" -I -S ", " -I "), ["interpreter-options"]),
    "without -X utf8": (master(" -X utf8", ""), ["interpreter-options"]),
    "another option": (master(" -I -S ", " -O -I -S "), ["interpreter-options"]),
    "console script": (argv(f"{PROGRAM} deliver"), ["interpreter-options"]),
    "as 0.1.0 printed it": (argv(" ".join(old_entrypoint())), ["entrypoint-unguarded"]),
    "another text after -c": (master(r"posix\._exit\(75\)", "posix._exit(0)"), ["entrypoint-unguarded"]),
    "no sender": (master(r"^ +--sender=.*\n", ""), ["argv-missing"]),
    "no client": (master(r"^ +--client-.*\n", ""), ["argv-missing"]),
    "another macro": (master(r"--queue-id=\$\{queue_id\}", "--queue-id=${sender}"), ["argv-unknown"]),
    "two words": (master(r"--sender=", "--sender "), ["argv-unknown"]),
    "an unknown option": (master(r"--size=", "--octets="), ["argv-unknown"]),
    "no dashes": (master(r"^  --\n", ""), ["argv-recipient"]),
    "no recipient": (master(r"^  \$\{recipient\}\n", ""), ["argv-recipient"]),
    "user for recipient": (master(r"^  \$\{recipient\}\n", "  ${user}\n"), ["argv-recipient"]),
    "another socket": (master("--socket=.*", "--socket=/run/other"), ["socket-other"]),
    "no socket": (master("^ +--socket=.*\n", ""), ["socket-other"]),
    "no status filter": (master(r"^ +-o pipe_delivery_status_filter=.*\n", ""), ["status-filter"]),
    "empty status filter": (filter_gone, ["status-filter"]),
    "status filter for crashes only": (filter_for_crashes_only, ["status-filter"]),
    "no such table": (master("(filter=regexp):.*", r"\1:/nonexistent"), ["status-filter"]),
    # pipehandler.toml
    "our message size": (handler(limits={"message_size": 1_000_000}), ["message-size-limit"]),
    "our deadline": (handler(limits={"deadline": 290}), ["time-limit"]),
    "our socket": (handler(serve={"socket": "/run/other"}), ["socket-other"]),
}


def test_nothing_to_find(whole: MailHost) -> None:
    """A host set up as in the README has no findings, for root and in both parts."""
    for part in ("all", "postfix"):
        done = run(whole, "--part", part)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("everything is as it should be (checked: ")
    assert check(whole) == []


@pytest.mark.parametrize("what", BROKEN)
def test_broken(host: MailHost, what: str) -> None:
    """The fault is found under its code, and nothing else; the printed command fixes it."""
    spoil, expected = BROKEN[what]
    spoil(host)
    found = check(host, "--part", "postfix")
    assert codes(found) == expected
    assert all(all(finding.values()) for finding in found)
    apply_fixes(found)
    assert codes(check(host, "--part", "postfix")) == []


@pytest.fixture
def with_client(host: MailHost) -> Iterator[MailHost]:
    """The same host with the hand-over client, which check has nothing to say about."""
    path = host.folder / "client"
    host.use_client(path)
    yield host
    host.handler.before = []
    path.unlink(missing_ok=True)


CLIENTS: dict[str, tuple[Callable[[MailHost], object], str]] = {
    "empty": (lambda host: (host.folder / "client").write_bytes(b""), "client-broken"),
    "missing": (lambda host: (host.folder / "client").unlink(), "client-broken"),
    "closed to the account": (lambda host: (host.folder / "client").chmod(0o700), "client-broken"),
    "another": (
        lambda host: (host.folder / "client").write_bytes(Path(client.shipped()).read_bytes() + b"x"),
        "client-other",
    ),
    "without the loader": (master(r"argv=\S*/ld\S* ", "argv="), "client-loader"),
    "another folder": (master(f"{client.OPTION}{PACKAGES}", f"{client.OPTION}/usr/lib"), "client-packages"),
}


def test_client(with_client: MailHost) -> None:
    """A host with the client has no findings, and the summary names the entrypoint."""
    done = run(with_client, "--part", "postfix")
    where = f"Postfix in {with_client.config} with the hand-over client {with_client.folder}/client"
    assert done.stdout == f"everything is as it should be (checked: {where})\n"


@pytest.mark.parametrize("what", CLIENTS)
def test_broken_client(with_client: MailHost, what: str) -> None:
    """A client that does not work, or is not that of the installation, is found; after the fix it is still used."""
    spoil, expected = CLIENTS[what]
    spoil(with_client)
    found = check(with_client, "--part", "postfix")
    assert codes(found) == [expected]
    apply_fixes(found)
    assert check(with_client, "--part", "postfix") == []
    assert f" {with_client.folder}/client " in (with_client.config / "master.cf").read_text()


def test_table_of_recipients(host: MailHost) -> None:
    """A table of recipients that queries with the handler's role has no finding; postconf warns of a missing one."""
    for lookup in ("lookup('%s', '+')", "lookup('%s')", "lookup('%S','+') LIMIT 1"):
        recipients(lookup)(host)
        assert check(host, "--part", "postfix") == []
    (host.config / "pgsql-recipients.cf").unlink()
    assert codes(check(host, "--part", "postfix")) == ["postfix-warning"]


def test_report(host: MailHost) -> None:
    """The text shows each problem, its effect, its fix, and the number of findings; the same as --json."""
    main("enable_long_queue_ids = no")(host)
    main("bounce_queue_lifetime = 0")(host)
    done = run(host)
    expected = [
        line
        for each in check(host)
        for line in (
            f"{each['code']}: {each['what']}",
            f"    detail: {each['detail']}",
            f"    fix:    {each['fix']}",
            "",
        )
    ]
    where = f"the handler's part as {account.NAME}, Postfix in {host.config} with the Python entrypoint"
    assert done.stdout.splitlines() == [*expected, f"2 findings (checked: {where})"]
    assert (done.returncode, done.stderr) == (1, "")


def test_no_transport(host: MailHost) -> None:
    """Without the entry in master.cf there is one finding, and its line appends the entry."""
    file = host.config / "master.cf"
    file.write_text(file.read_text().partition("# The transport")[0])
    found = check(host, "--part", "postfix")
    assert codes(found) == ["transport-missing"]
    apply_fixes(found)
    assert "user=pipehandler" in file.read_text()
    master("user=pipehandler", f"user={account.NAME}")(host)  # this machine may not have the other
    assert check(host) == []


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ("user=", "user-missing"),
        ("user=root", "user-privileged"),
        ("user=postfix", "user-privileged"),
        (f"user={account.NAME}:root", "user-privileged"),
        (f"user={account.NAME}:nosuch", "user-unknown"),
    ],
)
def test_no_good_account(host: MailHost, user: str, code: str) -> None:
    """An account that pipe(8) refuses is replaced by the one of the README."""
    master(" user=[a-z]+", f" {user}")(host)
    found = check(host, "--part", "postfix")
    assert codes(found) == [code]
    if code == "user-unknown":
        assert found[0]["fix"] == "groupadd --system nosuch"
        return
    apply_fixes(found)
    assert "  user=pipehandler\n" in (host.config / "master.cf").read_text()


def test_unknown_account(host: MailHost) -> None:
    """A missing account has to be created (which a test does not do on this machine)."""
    master(" user=[a-z]+", " user=nosuchaccount")(host)
    found = check(host)
    assert codes(found) == ["user-unknown"]
    assert found[0]["fix"] == "useradd --system --no-create-home --shell /usr/sbin/nologin nosuchaccount"


def test_another_name(host: MailHost) -> None:
    """The transport may have another name, and keeps it when its entry is printed again."""
    main("virtual_transport = store")(host)
    main("store_destination_recipient_limit = 1")(host)
    main("store_time_limit = 300s")(host)
    master("^pipehandler unix", "store unix")(host)
    found = check(host, "--part", "postfix")
    assert codes(found) == ["postfix-warning", "postfix-warning"]  # of the settings for the old name
    apply_fixes(found)
    assert check(host) == []
    master(" null_sender=", " flags=F null_sender=")(host)
    found = check(host)
    assert codes(found) == ["flags-change-bytes"]
    apply_fixes(found)
    assert check(host) == []


def test_two_transports(host: MailHost) -> None:
    """Two transports, each with a configuration, both have no findings, whichever is named; a fault names its
    transport."""
    other = host.handler.folder / "other.toml"
    shutil.copy(host.handler.config, other)
    entry = (host.config / "master.cf").read_text().partition("# chroot n")[2]
    entry = entry.replace("\npipehandler unix", "\nother unix").replace(str(host.handler.config), str(other))
    host.add("master.cf", f"# {entry}")
    main("other_destination_recipient_limit = 1")(host)
    main("other_time_limit = 300s")(host)
    assert check(host) == []
    master(f"--config={other}", f"--config={other}x")(host)
    found = check(host)
    assert codes(found) == ["configuration"]
    assert found[0]["fix"].endswith(f"> {other}x")


def test_no_postfix(host: MailHost) -> None:
    """No configuration of Postfix, or one that it cannot read, is a finding."""
    done = run(host, "--config-directory", "/nonexistent")
    assert done.returncode == 1
    assert done.stdout.startswith("postfix: the configuration of Postfix in /nonexistent cannot be read: ")
    host.add("master.cf", "nonsense\n")
    assert codes(check(host)) == ["postfix"]
    # In a namespace without its programs.
    without = ["unshare", "--mount", "bash", "-euc", 'mount -t tmpfs tmpfs /usr/sbin && exec "$@"', "-"]
    command = [*without, PROGRAM, *_command(host, ("--json",))]
    done = subprocess.run(command, capture_output=True, text=True)
    (found,) = json.loads(done.stdout)
    assert (found["code"], found["fix"]) == ("postfix", "apt-get install postfix")


def test_twice_in_main(host: MailHost) -> None:
    """Warnings of postconf itself are passed on."""
    host.add("main.cf", "queue_run_delay = 5m\n")
    assert codes(check(host, "--part", "postfix")) == ["postfix-warning"]


def test_full_queue(host: MailHost) -> None:
    """Too little room for the queue, for which smtpd(8) would refuse mail."""
    queue = host.folder / "queue"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", queue], check=True)
    try:
        assert codes(check(host, "--part", "postfix")) == ["queue-full"]
    finally:
        subprocess.run(["umount", queue], check=True)


def state_of_root(host: MailHost) -> None:
    """The state directory belongs to another account."""
    os.chown(host.handler.state, 0, 0)
    host.handler.state.chmod(0o700)


def no_state(host: MailHost) -> None:
    """The state directory is missing."""
    shutil.rmtree(host.handler.state)


def closed_folder(host: MailHost) -> None:
    """The account may not enter the configuration's folder."""
    host.handler.log.touch()
    account.give(host.handler.log)
    host.handler.folder.chmod(0o700)
    os.chown(host.handler.folder, 0, 0)


ACCOUNT: dict[str, tuple[Callable[[MailHost], None], list[str]]] = {
    "configuration": (lambda host: host.handler.config.chmod(0o600), ["configuration"]),
    "its folder": (closed_folder, ["configuration"]),
    "state directory of root": (state_of_root, ["state-directory"]),
    "no state directory": (no_state, ["state-directory"]),
    "log file of root": (lambda host: host.handler.log.touch(0o600), ["log-file"]),
}


@pytest.mark.parametrize("what", ACCOUNT)
def test_only_the_account_sees_it(host: MailHost, what: str) -> None:
    """Root may do everything, so the check runs as the account of the transport, and fixes what that account may not
    do."""
    spoil, expected = ACCOUNT[what]
    spoil(host)
    found = check(host)
    assert codes(found) == expected
    assert check(host, "--part", "postfix") == []
    apply_fixes(found)
    assert check(host) == []


def own_installation(host: MailHost) -> Path:
    """A separate virtual environment for the host, which a test may make inaccessible; master.cf names it. Returns its
    folder."""
    here, there = Path(sys.prefix), host.folder / "venv"
    packages = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    (there / packages).mkdir(parents=True)
    (there / "bin").mkdir()
    (there / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    shutil.copy(here / "bin" / "pipehandler", there / "bin")
    shutil.copy(here / "pyvenv.cfg", there)
    for package in (here / packages).iterdir():
        if package.name != "pipehandler":
            (there / packages / package.name).symlink_to(package)
    shutil.copytree(here / packages / "pipehandler", there / packages / "pipehandler")
    master(re.escape(sys.executable), f"{there}/bin/python")(host)
    master(re.escape(PACKAGES), f"{there / packages}")(host)
    return there


def check_by(host: MailHost, folder: Path) -> list[dict[str, str]]:
    """The findings of another installation."""
    command = [str(folder / "bin" / "python"), "-I", "-m", "pipehandler", *_command(host, ("--json",))]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_installation(host: MailHost) -> None:
    """The program in master.cf is tried as Postfix would run it: in an inaccessible folder, with unreadable files, or
    missing."""
    folder = own_installation(host)
    assert codes(check(host)) == ["installation"]
    assert check_by(host, folder) == []

    folder.chmod(0o700)
    found = check_by(host, folder)
    assert codes(found) == ["account"]
    assert found[0]["fix"] == f"chmod -R o+rX {folder}"
    apply_fixes(found)
    assert check_by(host, folder) == []

    subprocess.run(["chmod", "-R", "go=", *folder.glob("lib/*/*/pipehandler/*.py")], check=True)
    found = check_by(host, folder)
    assert codes(found) == ["account"]
    apply_fixes(found)
    assert check_by(host, folder) == []

    next(folder.glob("lib/*/*/pipehandler/store/connection.py")).unlink()
    for cached in folder.glob("lib/*/*/pipehandler/__pycache__/store.*"):
        cached.unlink()
    assert codes(check(host)) == ["account", "installation"]


def test_python_below_a_home(host: MailHost) -> None:
    """A virtual environment that was made with a Python below root's home is to be made again: no command may open that."""
    folder = own_installation(host)
    home = pwd.getpwuid(0).pw_dir
    with tempfile.TemporaryDirectory(dir=home) as closed:
        program = Path(closed) / "python3"
        shutil.copy(os.path.realpath(sys.executable), program)
        (folder / "bin" / "python").unlink()
        (folder / "bin" / "python").symlink_to(program)
        (found,) = check_by(host, folder)
    assert found["code"] == "account"
    assert found["fix"].startswith(
        f"# create the virtual environment again with /usr/bin/python3: {program} is below {home}"
    )


def test_another_python(host: MailHost) -> None:
    """After an upgrade of the system's Python, the installation is in the folder of the former version."""
    there = host.folder / "venv" / "lib" / "python3.0" / "site-packages"
    there.parent.mkdir(parents=True)
    there.symlink_to(PACKAGES)
    master(re.escape(f"{PACKAGES} deliver"), f"{there} deliver")(host)
    (finding,) = check(host, "--part", "postfix")
    assert finding["code"] == "interpreter-version"
    assert finding["what"].endswith("/__main__.py was installed for Python 3.0")
    assert finding["fix"].startswith("# create the environment again")


def test_the_folder_of_another_python(host: MailHost) -> None:
    """A new environment for a newer Python has another folder: master.cf names the former one, and its line is to be printed again,
    nothing else."""
    there = host.folder / "venv" / "lib" / "python3.0" / "site-packages"
    master(re.escape(f"{PACKAGES} deliver"), f"{there} deliver")(host)
    (finding,) = check(host, "--part", "postfix")
    assert finding["code"] == "entrypoint-missing"
    assert " postfix master.cf " in finding["fix"]


def test_no_python(host: MailHost) -> None:
    """A file that is not an interpreter."""
    master(r"argv=\S+", "argv=/bin/false")(host)
    assert codes(check(host)) == ["account"]


def test_peer_authentication(host: MailHost, server: PostgreSQL) -> None:
    """The role that PostgreSQL assigns to the account is determined by running as the account."""
    hba = server.data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"local all postgres trust\nlocal all all peer\n{before}")
    server.reload()
    try:
        (found,) = check(host)
        assert found["code"] == "authentication"
        assert (
            f"local all pipehandler peer map=pipehandler, and to pg_ident.conf: pipehandler {account.NAME} pipehandler"
            in found["fix"]
        )
        server.psql("postgres", "ALTER ROLE pipehandler CONNECTION LIMIT 40")  # there is room for another role
        server.psql("postgres", f"CREATE ROLE {account.NAME} LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT 30")
        host.handler.configure(_conninfo(host).replace("user=pipehandler", f"user={account.NAME}"))
        assert check(host) == []
    finally:
        hba.write_text(before)
        server.reload()
        server.psql("postgres", f"ALTER ROLE pipehandler CONNECTION LIMIT {CONNECTIONS}")
        server.psql("postgres", f"DROP ROLE IF EXISTS {account.NAME}")


def test_another_configuration(host: MailHost) -> None:
    """The named configuration has to be the one that delivers; otherwise the fix puts it into master.cf."""
    other = host.handler.folder / "other.toml"
    shutil.copy(host.handler.config, other)
    host.handler.config = other
    try:
        found = check(host)
        assert codes(found) == ["configuration-other"]
        apply_fixes(found)
        assert check(host) == []
    finally:
        host.handler.config = host.handler.folder / "pipehandler.toml"


@pytest.mark.parametrize(
    ("user", "note"),
    [
        (account.NAME, f"not root: the handler's part was checked as {account.NAME}"),
        ("daemon", "not root, nor the account of the transport: the handler's part was not checked"),
    ],
)
def test_not_root(host: MailHost, user: str, note: str) -> None:
    """Without root a note lists what was not checked; files that are unreadable to an account that never delivers are
    not a finding."""
    host.handler.config.chmod(0o600)
    account.give(host.handler.config)
    host.settle()
    done = subprocess.run(
        [PROGRAM, *_command(host, ("--json",))],
        capture_output=True,
        text=True,
        cwd="/",
        user=user,
        group=user if user == "daemon" else "nogroup",
        extra_groups=[],
    )
    assert (done.returncode, json.loads(done.stdout)) == (3, [])  # a part
    assert done.stderr.startswith(f"note: {note}")


def test_conninfo_is_refused(host: MailHost) -> None:
    """The configuration is what is checked; an option that would be ignored is a usage error."""
    done = subprocess.run([PROGRAM, "--conninfo", "host=x", *_command(host, ())], capture_output=True, text=True)
    assert done.returncode == 2
    assert "it does not take --conninfo" in done.stderr


def test_fixes_keep_other_mail(host: MailHost) -> None:
    """On a host whose virtual_transport, tables and limit serve other mail, the fixes only add."""
    (host.config / "users").write_text("anna@firma.example yes\n")
    users = f"texthash:{host.config}/users"
    host.postconf(
        "-e", "virtual_transport=lmtp:unix:x", f"virtual_mailbox_maps={users}", "message_size_limit=600000000"
    )
    found = check(host)
    assert codes(found) == ["message-size-limit", "transport-unused"]
    apply_fixes(found)
    assert check(host) == []
    assert host.postconf("-h", "virtual_transport", "virtual_mailbox_maps", "message_size_limit", "transport_maps") == (
        f"lmtp:unix:x\n{users}\n600000000\ntexthash:{host.config}/pipehandler_transport\n"
    )
    (host.config / "users").unlink()
    (host.config / "pipehandler_transport").unlink()


def test_table_of_recipients_is_added(host: MailHost) -> None:
    """The table of recipients is added after the existing ones; only static:, which accepts everything, is removed."""
    maps = "texthash:/nonexistent, static:all"
    host.postconf("-e", f"virtual_mailbox_maps={maps}")
    handler(recipients={"policy": "known"})(host)
    (found,) = [finding for finding in check(host) if finding["code"] == "recipients-open"]
    apply_fixes([found])
    table = host.config / "pgsql-recipients.cf"
    assert host.postconf("-h", "virtual_mailbox_maps") == f"texthash:/nonexistent, proxy:pgsql:{table}\n"
    table.unlink()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[limits]\ndeadline = 30\n",
        "limits.message_size = 5000\n",
        "[limits]\nmessage_size=5000 # small\nmemory = 1000000000\n",
    ],
)
def test_raised_message_size(tmp_path: Path, text: str) -> None:
    """The command works for each way to write the section, and raises the memory limit if that has to follow."""
    file = tmp_path / "pipehandler.toml"
    file.write_text(f"{text}[log]\nsyslog = false\n")
    subprocess.run(["bash", "-euc", raise_message_size(str(file), 600_000_000)], check=True)
    limits = load(str(file)).limits
    assert (limits.message_size, limits.memory) == (600_000_000, memory_needed(600_000_000))
    assert load(str(file)).log.syslog is False
