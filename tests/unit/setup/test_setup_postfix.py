"""What setup would do to a Postfix in a separate folder, which is only read, so it does not have to run."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from harness.missing import missing

from pipehandler.setup.files import digest
from pipehandler.setup.host import Host
from pipehandler.setup.postfix_state import PostfixState
from pipehandler.setup.record import Record
from pipehandler.setup.step import Change, SetupError, Step
from pipehandler.setup.steps.receive_only import receive_only
from pipehandler.setup.steps.routing import routing
from pipehandler.setup.steps.services import units
from pipehandler.setup.steps.tables import tables
from pipehandler.setup.steps.transport import transport
from pipehandler.setup.undo import undo


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose main.cf sets nothing."""
    if shutil.which("postconf", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        missing("Postfix")
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = mx.example.net\n")
    (tmp_path / "master.cf").write_text("pickup unix n - y 60 1 pickup\n")
    made = Host(("example.com",), str(tmp_path / "pipehandler.toml"), config_directory=str(tmp_path), systemd=True)
    settle(made)
    return made


def settle(host: Host) -> None:
    """Make the files look old: Postfix waits up to two seconds before it reads a file that was just changed."""
    for name in ("main.cf", "master.cf"):
        os.utime(host.file(name), (1, 1))


def write(host: Host, *lines: str, name: str = "main.cf") -> None:
    """Add lines to main.cf, or to master.cf."""
    with Path(host.file(name)).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    settle(host)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("mydestination = localhost, example.com", "example.com is in mydestination"),
        ("relay_domains = example.com", "example.com is in relay_domains"),
        ("virtual_alias_maps = inline:{{ example.com = anything }}", "example.com is in virtual_alias_domains"),
        (
            "transport_maps = inline:{{ example.com = smtp:[192.0.2.1] }}",
            "example.com goes to smtp:[192.0.2.1] by transport_maps",
        ),
        (
            "virtual_mailbox_domains = inline:{{ example.com = x }}",
            "example.com is in virtual_mailbox_domains, and its mail goes to",
        ),
        ("relay_domains = com", "example.com is in relay_domains"),
        ("transport_maps = inline:{{ .com = discard: }}", "example.com goes to discard: by transport_maps"),
        ("virtual_mailbox_domains = /nonexistent", "it is unknown whether example.com is in /nonexistent"),
        ("virtual_mailbox_domains = hash:/nonexistent", "it is unknown whether example.com is in hash:/nonexistent"),
    ],
)
def test_nothing_is_taken_over(host: Host, line: str, reason: str) -> None:
    """A domain whose mail is or may be routed elsewhere is refused; the error names the parameter."""
    write(host, line)
    with pytest.raises(SetupError, match=reason.replace("[", r"\[")):
        routing(host, Record("/nonexistent"))


@pytest.mark.parametrize("parameter", ["relay_domains", "virtual_mailbox_domains"])
@pytest.mark.parametrize(
    ("word", "listed"),
    [
        ("other.example, Example.COM", True),
        ("texthash:{folder}/table", True),
        ("regexp:{folder}/pattern", True),
        ("{folder}/names", True),
        ("{folder}/tables", True),
        ("{folder}/comment", False),
        ("!example.com, static:all", False),
        (".com", None),
    ],
)
def test_forms_of_a_list(host: Host, tmp_path: Path, parameter: str, word: str, listed: bool | None) -> None:
    """A domain is found in whatever form a list names it, and in the order in which Postfix reads the words."""
    (tmp_path / "table").write_text("Example.com yes\n")
    (tmp_path / "pattern").write_text("/^example\\.com$/ yes\n")
    (tmp_path / "names").write_text("# mine\nother.example\nEXAMPLE.com\n")
    (tmp_path / "tables").write_text(f"texthash:{tmp_path}/table\n")
    (tmp_path / "comment").write_text("# example.com has moved\nother.example\n")
    write(host, f"{parameter} = {word.format(folder=tmp_path)}", "parent_domain_matches_subdomains =")
    expected = parameter == "relay_domains" if listed is None else listed  # only that one is a domain list
    assert PostfixState.read(host).has(parameter, "example.com") == expected


@pytest.mark.parametrize(
    ("parameter", "table", "reason"),
    [
        (
            "transport_maps",
            "/@example\\.com$/ smtp:[192.0.2.1]",
            "example.com goes to smtp:[192.0.2.1] by transport_maps",
        ),
        ("transport_maps", "/./ smtp:[192.0.2.1]", "example.com goes to smtp:[192.0.2.1] by transport_maps"),
        ("transport_maps", "/^postmaster@/ smtp:[192.0.2.1]", "example.com goes to smtp:[192.0.2.1] by transport_maps"),
        ("transport_maps", "/^example\\.com$/ smtp:[192.0.2.1]", ""),  # Postfix compares patterns with whole addresses
        ("transport_maps", "/^anna@example\\.com$/ smtp:[192.0.2.1]", ""),
        (
            "virtual_alias_maps",
            "/@example\\.com$/ a@example.net",
            "every address of example.com is replaced by a@example.net",
        ),
        ("recipient_canonical_maps", "/^(.*)@example\\.com$/ $1@example.net", "(parameter recipient_canonical_maps)"),
        ("virtual_alias_maps", "/^anna@example\\.com$/ a@example.net", ""),
        ("virtual_alias_maps", "/^(.*)@example\\.com$/ $1@example.com", ""),
    ],
)
def test_patterns(host: Host, tmp_path: Path, parameter: str, table: str, reason: str) -> None:
    """Tables of patterns are asked about addresses, as Postfix does."""
    (tmp_path / "patterns").write_text(f"{table}\n")
    write(host, f"{parameter} = regexp:{tmp_path}/patterns", "virtual_alias_domains =")
    if not reason:
        assert routing(host, Record("/nonexistent")).commands
        return
    with pytest.raises(SetupError, match=re.escape(reason)):
        routing(host, Record("/nonexistent"))


def test_catch_all_alias(host: Host) -> None:
    """A domain whose addresses are all replaced has its mail elsewhere."""
    write(host, "virtual_alias_maps = inline:{{ @example.com = a@example.net }}")
    with pytest.raises(SetupError, match=r"every address of example\.com is replaced by a@example\.net"):
        routing(host, Record("/nonexistent"))


def test_a_service_of_the_same_name(host: Host) -> None:
    """A service with our name and another purpose is not replaced."""
    write(host, "pipehandler unix - n n - - pipe user=nobody argv=/bin/true", name="master.cf")
    with pytest.raises(SetupError, match="has a service pipehandler that does not run the handler"):
        PostfixState.read(host)


def test_fresh_host(host: Host) -> None:
    """Without other mail, virtual_transport is ours, and there is nothing to confirm."""
    step = routing(host, Record("/nonexistent"))
    assert step.differences == ()
    assert "'virtual_transport = pipehandler'" in step.commands[-1]
    assert "transport_maps" not in step.commands[-1]


def test_wildcard(host: Host) -> None:
    """A route for all mail takes precedence over virtual_transport, so our domain gets its own route."""
    write(host, "transport_maps = inline:{{ * = smtp:[192.0.2.1] }}")
    command = routing(host, Record("/nonexistent")).commands[-1]
    assert f"}}}}, texthash:{host.file('pipehandler_transport')}" in command
    assert [line for line in tables(host, Record("/nonexistent")).commands if "example.com pipehandler:" in line]


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("", 51_200_000),
        ("mailbox_size_limit = 0\nvirtual_mailbox_limit = 0", 52_428_800),
        ("mailbox_size_limit = 20000000", 20_000_000),
    ],
)
def test_size(host: Host, line: str, size: int) -> None:
    """The limit for messages is never above those for mailboxes, with which local(8) and virtual(8) would not start."""
    write(host, line)
    assert f"'message_size_limit = {size}'" in routing(host, Record("/nonexistent")).commands[-1]


def test_values_stay(host: Host) -> None:
    """Existing values are extended or left unchanged, with a diff of the changes."""
    write(
        host,
        "virtual_mailbox_maps = inline:{ z=y }, inline:{ x=y }",
        "message_size_limit = 1000000",
        "proxy_read_maps = texthash:/b",
        "enable_long_queue_ids = no",
    )
    table, routes = f"proxy:pgsql:{host.file('pgsql-recipients.cf')}", f"texthash:{host.file('pipehandler_transport')}"
    assert routing(host, Record("/nonexistent")).differences == (
        "+pipehandler_destination_recipient_limit = 1",
        "+pipehandler_time_limit = 300s",
        "+virtual_mailbox_domains = $virtual_mailbox_maps, example.com",
        "-virtual_mailbox_maps = inline:{ z=y }, inline:{ x=y }",
        f"+virtual_mailbox_maps = inline:{{ z=y }}, inline:{{ x=y }}, {table}",
        "-proxy_read_maps = texthash:/b",
        f"+proxy_read_maps = texthash:/b, {table}",
        f"+transport_maps = {routes}",
    )


def test_files_of_others_stay(host: Host) -> None:
    """An existing table that is not ours is kept; one of ours that is out of date is written again."""
    file = Path(host.file("pgsql-recipients.cf"))
    file.write_text("query = SELECT 1\n")
    (filter_only,) = [command for command in tables(host, Record("/nonexistent")).commands if ">" in command]
    assert filter_only.endswith("pipehandler_status_filter")
    record = Record("/nonexistent", [Change("file", str(file), after=digest(str(file)))])
    assert len([command for command in tables(host, record).commands if ">" in command]) == 2


def test_units(host: Host, tmp_path: Path) -> None:
    """If systemd runs, the units of the workers and of `expire` are written, started and recorded."""
    host = Host(config=host.config, config_directory=host.config_directory, folder=str(tmp_path), systemd=True)
    step = units(host, Record("/nonexistent"))
    folder, enabled = tmp_path / "systemd/system", "pipehandler.socket pipehandler.service pipehandler-expire.timer"
    assert step.commands[-2:] == (
        "systemctl daemon-reload",
        f"systemctl enable --now {enabled}",
    )
    written = {change.name for change in step.changes if change.kind == "file"}
    assert written == {str(folder / unit) for unit in [*enabled.split(), "pipehandler-expire.service"]}
    assert undo(host, step.changes[-1]).commands == (f"systemctl disable --now {enabled}",)


@pytest.mark.parametrize(
    ("change", "line", "commands"),
    [
        (
            Change("parameter", "virtual_transport", None, "pipehandler"),
            "virtual_transport = pipehandler",
            ["-X virtual_transport"],
        ),
        (Change("parameter", "virtual_transport", None, "pipehandler"), "virtual_transport = lmtp:x", []),
        (Change("parameter", "virtual_transport", None, "pipehandler"), "", []),
        (Change("list", "transport_maps", None, "texthash:/a"), "transport_maps = texthash:/a", ["-X transport_maps"]),
        (
            Change("list", "transport_maps", "inline:{ a=b },hash:/b", "texthash:/a"),
            "transport_maps = inline:{ a=b }, hash:/b, texthash:/a",
            ["-e 'transport_maps = inline:{ a=b },hash:/b'"],
        ),
        (
            Change("list", "transport_maps", "hash:/b", "texthash:/a"),
            "transport_maps = hash:/c, texthash:/a",
            ["-e 'transport_maps = hash:/c'"],
        ),
        (Change("list", "transport_maps", "hash:/b", "texthash:/a"), "transport_maps = hash:/b", []),
        (
            Change("list", "virtual_mailbox_domains", None, "example.com"),
            "virtual_mailbox_domains = $virtual_mailbox_maps, example.com",
            ["-X virtual_mailbox_domains"],
        ),
    ],
)
def test_undo(host: Host, change: Change, line: str, commands: list[str]) -> None:
    """Values that setup set are restored; values changed since then are kept."""
    write(host, line)
    directory = f"postconf -c {host.config_directory} "
    assert list(undo(host, change).commands) == [directory + command for command in commands]


def test_changed_file_stays(host: Host) -> None:
    """A file that was changed after setup is not removed."""
    file = host.file("pipehandler_status_filter")
    Path(file).write_text("changed\n")
    assert undo(host, Change("file", file, after="other")).commands == ()
    assert undo(host, Change("file", file)).commands == (f"rm -f {file}",)


def carry_out(host: Host, record: Record, step: Step) -> None:
    """Do and record what a step says, except for the reload of Postfix, which does not run."""
    for change in step.changes:
        record.add(change)
    for command in step.commands:
        subprocess.run(["sh", "-euc", command], check=True)
        settle(host)


def test_receive_only(host: Host) -> None:
    """Missing settings are added, postscreen comes before smtpd, a second run changes nothing, and the removal restores
    both files; what exists stays, and a certificate is never mixed with another key."""
    host = replace(host, receive_only=True)
    write(host, "smtpd_banner = hello", "smtpd_tls_cert_file = /etc/ssl/own.pem")
    services = ("smtp      inet  n       -       y       -       -       smtpd", "smtp unix - - y - - smtp")
    write(host, *services, name="master.cf")
    files = [Path(host.file(name)) for name in ("main.cf", "master.cf")]
    before = [file.read_bytes() for file in files]
    record = Record(str(Path(host.config).with_name("setup.json")))

    step = receive_only(host, record)
    assert "main.cf has other values of smtpd_banner, which stay" in step.found
    carry_out(host, record, step)
    postfix = PostfixState.read(host)
    assert postfix.explicit["smtpd_banner"] == "hello"
    assert postfix.explicit["smtpd_forbid_bare_newline"] == "normalize"
    assert not {"smtpd_tls_key_file", "smtpd_milters"} & set(postfix.explicit)
    assert postfix.postfix is not None
    assert [service.command for service in postfix.postfix.services if service.kind in ("inet", "pass")] == [
        *("postscreen", "smtpd")
    ]
    assert postfix.postfix.warnings == []
    assert receive_only(host, record).commands == ()

    write(host, "disable_vrfy_command = no")
    subprocess.run(["postconf", "-c", host.config_directory, "-X", "notify_classes"], check=True)
    settle(host)
    step = receive_only(host, record)  # repairs what is missing, and keeps what is recorded
    assert step.commands == (f"postconf -c {host.config_directory} -e 'notify_classes = '",)
    carry_out(host, record, step)
    changes = [change for change in record.changes if change.kind != "copy"]
    steps = [undo(host, change) for change in changes]
    assert "changed since setup, and stay: disable_vrfy_command" in steps[0].found
    for step in steps:
        carry_out(host, record, step)
    subprocess.run(["postconf", "-c", host.config_directory, "-X", "disable_vrfy_command"], check=True)
    assert [file.read_bytes() for file in files] == before
    assert [undo(host, change).commands for change in changes] == [(), ()]


def test_files_return_as_they_were(host: Host) -> None:
    """Broken lines, comments between them, repeated parameters and an unfinished last line are there again after a
    removal; an operator's edit is not undone with them."""
    write(
        host,
        *("virtual_mailbox_domains=a.example", "transport_maps =", "# mine"),
        *("virtual_mailbox_domains =", "    firma.example,", "# and the second", "    second.example"),
        *("virtual_transport =", "\tlmtp:unix:x", "virtual_mailbox_maps = inline:{", "    {a@firma.example = yes} }"),
    )
    files = [Path(host.file(name)) for name in ("main.cf", "master.cf")]
    files[1].write_text("pickup unix n - y 60 1 pickup\nlast unix - - n - - pipe\n  user=nobody argv=/bin/true")
    settle(host)
    before = [file.read_bytes() for file in files]
    record = Record(str(Path(host.config).with_name("setup.json")))
    for edit in ("", "# an edit"):
        for make in (tables, transport, routing):
            carry_out(host, record, make(host, record))
            assert make(host, record).commands == ()
        state = PostfixState.read(host)
        assert state.postfix is not None
        assert [service.name for service in state.postfix.services][-2:] == ["last", "pipehandler"]
        assert state.postfix.services[-2].argv == ("/bin/true",)
        if edit:
            write(host, edit)
            write(host, edit, name="master.cf")
        for change in reversed(list(record.changes)):
            carry_out(host, Record("/nonexistent"), undo(host, change))
            record.discard(change)
        after = [file.read_bytes() for file in files]
        assert (after == before) == (not edit)
        assert [edit.encode() in content for content in after] == [True, True]
        assert list(Path(host.config_directory).glob("setup-*")) == []


def test_interrupted_while_writing(host: Host) -> None:
    """A file that was being written when setup was killed, or the disk became full, is written again."""
    file = Path(host.file("pgsql-recipients.cf"))
    file.write_text("# a part of it")
    record = Record("/nonexistent", [Change("file", str(file))])
    assert [command for command in tables(host, record).commands if command.endswith(f"> {file}")]


def test_full_disk(host: Host) -> None:
    """The entry is appended as a whole, or master.cf stays as it was: with a part of it, Postfix would not start."""
    file = Path(host.file("master.cf"))
    before = file.read_bytes()
    script = "set -eu\n" + "\n".join(transport(host, Record(f"{file.parent}/setup.json")).commands)
    full = f"ulimit -f 1; trap '' XFSZ; {script}"
    assert subprocess.run(["bash", "-c", full], capture_output=True).returncode != 0
    assert file.read_bytes() == before


def test_no_main_cf(host: Host) -> None:
    """A folder that is not Postfix's is named before anything changes."""
    Path(host.file("main.cf")).unlink()
    with pytest.raises(SetupError, match=r"main\.cf does not exist; .* --config-directory names"):
        PostfixState.read(host)


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("main.cf", "virtual_transport = lmtp:unix:x", "the virtual_ parameters of main.cf serve other mail"),
        ("master.cf", "submission inet n - y - - smtpd", "has the service submission; remove it first"),
    ],
)
def test_receive_only_beside_other_mail(host: Host, file: str, line: str, reason: str) -> None:
    """A host that handles other mail, or sends any, is refused."""
    write(host, line, name=file)
    with pytest.raises(SetupError, match=reason):
        receive_only(replace(host, receive_only=True), Record("/nonexistent"))
    assert receive_only(host, Record("/nonexistent")).commands == ()


@pytest.mark.parametrize(
    "line", ["smtp inet n - y - 1 postscreen", "smtp inet n - y - - smtpd -o x=y", "smtpd pass - - y - - smtpd"]
)
def test_services_of_the_operator_stay(host: Host, line: str) -> None:
    """Services for the SMTP port that are not the usual ones are not changed."""
    write(host, line, name="master.cf")
    step = receive_only(replace(host, receive_only=True), Record("/nonexistent"))
    assert [change.kind for change in step.changes if change.kind != "copy"] == ["settings"]
