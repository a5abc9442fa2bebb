"""The Maildir watcher against a real PostgreSQL: each message is stored once, and no file is lost or touched that is not one."""

import os
import shutil
import signal
from pathlib import Path

import psycopg
import pytest
from harness import account, poison
from harness.database import Database
from harness.handler import Handler
from harness.maildir import Mailbox, content, message, watching
from harness.service import held, stuck, wait_until
from harness.upgradable import Upgradable

from pipehandler.maildir.contents import contents, is_watched

STORED = "SELECT count(*) FROM pipehandler.delivery"
SCAN_ONLY: dict[str, object] = {"scan_interval": 1}


@pytest.fixture
def maildir(handler: Handler) -> Mailbox:
    """An empty Maildir."""
    return Mailbox(handler.folder / "Maildir")


def strace(*options: str) -> list[str]:
    """A command that changes system calls of what it starts."""
    if shutil.which("strace") is None:
        pytest.skip("strace")
    return ["strace", "-D", "-f", "-qq", "-o", "/dev/null", *options]


def test_a_message_is_stored_and_moved(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """What is there already, what is linked and what is renamed; the envelope comes from the topmost fields."""
    there = maildir.put(message(1))
    with watching(handler, maildir) as watch:
        wait_until(maildir.is_empty)
        linked = maildir.put(message(2, sender=""))
        wait_until(maildir.is_empty)
        renamed = maildir.put(message(3, '"we ird"@EXAMPLE.com'), rename=True)
        wait_until(maildir.is_empty)
        assert is_watched(str(maildir.path))
        assert watch.stop() == 0
    assert maildir.names("cur") == [f"{name}:2," for name in sorted((there, linked, renamed))]
    assert maildir.names("failed") == []
    assert not is_watched(str(maildir.path))
    rows = database.rows(
        "SELECT sender, recipient, original_recipient, ingress, r.raw, prepended || r.raw = %s"
        "  FROM pipehandler.delivery d JOIN pipehandler.raw_message r USING (message) ORDER BY d.id",
        message(1),
    )
    assert [tuple(row) for row in rows] == [
        ("sender@example.org", "user@example.com", "alias@example.com", "maildir", content(1), True),
        ("", "user@example.com", "alias@example.com", "maildir", content(2), False),
        ("sender@example.org", "we ird@example.com", "alias@example.com", "maildir", content(3), False),
    ]


def test_a_message_that_came_by_pipe_is_a_duplicate(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """And its file is removed, with --remove."""
    assert handler.deliver(content(1), "user@example.com").status == 0
    maildir.put(message(1))
    with watching(handler, maildir, remove=True) as watch:
        wait_until(maildir.is_empty)
        wait_until(lambda: watch.outcomes() == ["duplicate"])
    assert (database.value(STORED), maildir.names("cur")) == (1, [])


def test_any_name_will_do(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """Octets that are not UTF-8, line ends, flags, the longest name; and no file in cur/ or failed/ is replaced."""
    names = [os.fsdecode(b"\xff\xfe"), "a\nb", "flagged:2,S", "x" * 255]
    for number, name in enumerate(names):
        maildir.put(message(number), name)
    maildir.put(b"", os.fsdecode(b"\xff"))
    (maildir.path / "new" / os.fsdecode(b"left\xff")).symlink_to("/")
    (maildir.path / "cur" / "flagged:2,S").write_text("old")
    with watching(handler, maildir) as watch:
        wait_until(lambda: len(maildir.names("new")) == 1)
        watch.waits_for("left alone")
    expected = [f"{names[0]}:2,", "a\nb:2,", "flagged:2,S", "flagged:2,S.1", "x" * 255]
    assert maildir.names("cur") == sorted(expected)
    assert (maildir.path / "cur" / "flagged:2,S").read_text() == "old"
    assert maildir.names("failed") == [os.fsdecode(b"\xff"), os.fsdecode(b"\xff.reason")]
    assert database.value(STORED) == 4


def test_what_can_never_be_stored_goes_to_failed(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """Without an envelope, too large, for a recipient without a lease; each with its reason, and never tried again."""
    database.execute("INSERT INTO pipehandler.address (address) VALUES ('known@example.com')")
    rejected = maildir.put(message(1))
    large = maildir.put(message(2, "known@example.com") + b"x" * 5000)
    bare = maildir.put(b"X: y\n" + message(3, "known@example.com"))  # these fields are not at the top
    empty = maildir.put(b"")
    good = maildir.put(message(4, "known@example.com"))
    with watching(
        handler, maildir, recipients={"policy": "known"}, limits={"message_size": 4096, "memory": 1 << 30}
    ) as watch:
        wait_until(maildir.is_empty)
        watch.waits_for("moved to failed")
    reasons = {
        name: (maildir.path / "failed" / f"{name}.reason").read_text()[:5] for name in (rejected, large, bare, empty)
    }
    assert reasons == {rejected: "5.1.1", large: "5.3.4", bare: "5.6.0", empty: "5.6.0"}
    assert maildir.names("failed") == sorted([*reasons, *(f"{name}.reason" for name in reasons)])
    assert maildir.names("cur") == [f"{good}:2,"]
    assert contents(str(maildir.path))["failed"].files == 4
    assert database.value(STORED) == 1


def test_other_files_are_left_alone(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """Links, FIFOs, folders, sockets, dot files and files of another account; and tmp/."""
    new = maildir.path / "new"
    secret = handler.folder / "secret"
    secret.write_bytes(message(1))
    account.give(secret)
    (new / "link").symlink_to(secret)
    os.mkfifo(new / "fifo")
    (new / "folder").mkdir()
    (new / ".dot").write_bytes(message(2))
    account.give(new / ".dot")
    (maildir.path / "tmp/unfinished").write_bytes(message(3))
    account.give(maildir.path / "tmp/unfinished")
    others = ["link", "fifo", "folder"]
    if account.IS_ROOT:
        (new / "other").write_bytes(message(4))
        others.append("other")
    with watching(handler, maildir, watch=SCAN_ONLY) as watch:
        for name in others:
            watch.waits_for(f"/{name}")
        maildir.put(message(5))
        wait_until(lambda: maildir.names("cur"))
        assert len([line for line in watch.events() if "left alone" in line]) == len(others)
    assert maildir.names("new") == sorted([".dot", *others])
    found = contents(str(maildir.path))
    assert (found["left_alone"].files, found["waiting"].files) == (len(others) + 1, 0)
    assert found["left_alone"].oldest
    assert database.value(STORED) == 1


def test_a_file_that_grows_is_not_stored_before_it_is_complete(
    handler: Handler, maildir: Mailbox, database: Database
) -> None:
    """A program writes into new/ directly; others go before it."""
    path = maildir.path / "new" / "growing"
    with watching(handler, maildir), path.open("wb") as file:
        account.give(path)
        file.write(message(1))
        file.flush()
        for number in (2, 3):
            maildir.put(message(number))
            maildir.wait(number - 1)  # new/ is not empty
        assert maildir.names("new") == ["growing"]
        file.write(b"The end.\n")
        file.close()
        wait_until(maildir.is_empty)
    assert (
        database.value("SELECT count(*) FROM pipehandler.raw_message WHERE raw = %s", content(1) + b"The end.\n") == 1
    )
    assert database.value(STORED) == 3


@pytest.mark.parametrize("change", ["grown", "replaced"])
def test_a_file_that_changes_during_its_delivery_stays(
    handler: Handler, maildir: Mailbox, database: Database, change: str
) -> None:
    """What was stored is not what is there now, so that is delivered as well."""
    with watching(handler, maildir, watch=SCAN_ONLY) as watch:
        with held(database):
            name = maildir.put(message(1))
            stuck(database)
            if change == "grown":
                with (maildir.path / "new" / name).open("ab") as file:
                    file.write(b"More.\n")
            else:
                maildir.put(message(2), name, rename=True)
        wait_until(maildir.is_empty)
        assert any("event=changed" in line for line in watch.events())
    assert database.value(STORED) == 2


def test_sigterm_finishes_the_message_under_way(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """It is stored and moved; the next one stays."""
    with watching(handler, maildir, watch={"workers": 1}) as watch:
        with held(database):
            maildir.put(message(1))
            stuck(database)
            maildir.put(message(2))
            watch.running.send_signal(signal.SIGTERM)
        assert watch.wait() == 0
    assert (len(maildir.names("cur")), len(maildir.names("new")), database.value(STORED)) == (1, 1, 1)


def test_it_becomes_the_program_that_is_installed(
    folder: Path, handler: Handler, maildir: Mailbox, database: Database
) -> None:
    """It finishes what is under way, and is the same process with another program, and with another configuration.

    A program that does not start and a wrong configuration do not replace it.
    """
    upgradable = Upgradable(folder)

    def started(times: int) -> None:
        wait_until(lambda: sum("event=watching" in line for line in watch.events()) == times, "the new program")

    with watching(handler, maildir, program=upgradable.program, watch=SCAN_ONLY) as watch:
        with held(database):
            maildir.put(message(1))
            stuck(database)
            upgradable.new("environment-2")
            upgradable.exchange("environment-2")
            watch.waits_for("event=replaced")
            maildir.put(message(2))
        started(2)
        wait_until(maildir.is_empty)
        configuration = handler.config.read_text()
        handler.config.write_text(configuration + "nonsense")
        watch.waits_for('event="not reloaded"')
        handler.config.write_text(configuration + "\n# edited\n")
        started(3)
        (upgradable.new("environment-3") / "parse" / "message.py").write_text("nonsense")
        upgradable.exchange("environment-3")
        watch.waits_for('event="not replaced"')
        maildir.put(message(3))
        wait_until(maildir.is_empty)
        assert watch.stop() == 0
    assert watch.outcomes() == ["delivered"] * 3
    assert database.value(STORED) == 3
    assert {line.partition(" pid=")[2].split()[0] for line in watch.events() if "event=watching" in line} == {
        str(watch.running.pid)
    }


def test_one_watcher_for_each_maildir(handler: Handler, maildir: Mailbox) -> None:
    """A second one says so, and leaves."""
    with watching(handler, maildir), pytest.raises(RuntimeError, match="left with 69"), watching(handler, maildir):
        pass


def test_events_are_lost_or_there_are_none(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """As on NFS, and where the kernel gives no inotify: the scan finds the mail."""
    for number, fault in enumerate(["add_watch:retval=1", "init1:error=EMFILE", "add_watch:error=ENOSPC"], 1):
        with watching(handler, maildir, under=strace("-e", f"inject=inotify_{fault}"), watch=SCAN_ONLY) as watch:
            watch.waits_for("event=watching")
            maildir.put(message(number))
            wait_until(maildir.is_empty)
            assert any("no events" in line for line in watch.events()) == (number > 1)
    assert database.value(STORED) == 3


def test_without_leases_a_file_has_to_rest(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """As on NFS, where fcntl(F_SETLEASE) is refused: a file that is being written to is still not touched."""
    probe = ("-P", f"{maildir.path}/tmp/pipehandler.lease", "-e", "inject=fcntl:error=EAGAIN")
    path = maildir.path / "new" / "growing"
    with watching(handler, maildir, under=strace(*probe), watch=SCAN_ONLY) as watch, path.open("wb") as file:
        account.give(path)
        maildir.put(message(1))
        while maildir.names("new") != ["growing"]:
            file.write(b"")
            os.utime(path)
        wait_until(lambda: watch.outcomes() == ["delivered"])
        file.write(message(2))
        file.close()
        wait_until(maildir.is_empty)
    assert database.value(STORED) == 2


def test_trouble_leaves_the_files(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """A database that is away: few attempts whatever the number of files, and all are stored afterwards."""
    for number in range(30):
        maildir.put(message(number))
    away = psycopg.conninfo.make_conninfo(handler.conninfo, port=1)
    there = handler.conninfo
    handler.configure(away)
    with watching(handler, maildir) as watch:
        wait_until(lambda: len(watch.outcomes()) >= 3)
        assert set(watch.outcomes()) <= {"store_unavailable", "outage"}
        assert len(watch.outcomes()) < 30
    assert len(maildir.names("new")) == 30
    handler.configure(there)
    with watching(handler, maildir):
        wait_until(maildir.is_empty)
    assert database.value(STORED) == 30


def test_a_message_that_kills_its_parser_is_stored(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """The worker dies, another takes the others, and the message is in quarantine at its second attempt."""
    maildir.put(b"Return-Path: <>\nDelivered-To: user@example.com\n" + poison.POISON)
    maildir.put(message(2))
    with watching(handler, maildir, under=poison.lethal()) as watch:
        wait_until(maildir.is_empty)
        wait_until(lambda: sorted(watch.outcomes()) == ["delivered", "fault", "quarantined"])
    assert database.value(STORED) == 2


def test_it_ends_where_a_maildir_is_replaced(handler: Handler, maildir: Mailbox) -> None:
    """And says so: its service manager starts it again, on the new one."""
    with watching(handler, maildir, watch=SCAN_ONLY) as watch:
        (maildir.path / "new").rename(maildir.path / "old")
        assert watch.wait() == 69
    with pytest.raises(RuntimeError, match="left with 69"), watching(handler, maildir):
        pass


def test_a_full_disk_of_the_database(handler: Handler, maildir: Mailbox, database: Database) -> None:
    """The files stay in new/, are tried again, and are stored when there is room."""
    database.execute(
        "CREATE FUNCTION public.no_room() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON pipehandler.delivery EXECUTE FUNCTION public.no_room()"
    )
    names = sorted(maildir.put(message(number)) for number in range(3))
    with watching(handler, maildir) as watch:
        wait_until(lambda: len(watch.outcomes()) >= 4)
        assert set(watch.outcomes()) == {"store_full"}
        assert maildir.names("new") == names
        database.execute("DROP TRIGGER full_disk ON pipehandler.delivery")
        wait_until(maildir.is_empty)
    assert (database.value(STORED), maildir.names("failed")) == (3, [])
