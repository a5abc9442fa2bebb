"""Postfix is switched between all ways in while mail comes: nothing is lost, doubled or bounced."""

import os
import pwd
from collections.abc import Callable

import pytest
from fault.ledger import Mode
from fault.load import Load, add_up, drain
from harness import account
from harness.database import Database
from harness.maildir import Mailbox, Watching
from harness.mailhost import MailHost
from harness.service import Service, wait_until

COUNT = "SELECT count(*) FROM pipehandler.delivery"
_PYTHON, _LMTP, _MAILDIR = "pipehandler", "pipehandler-lmtp", "virtual"


@pytest.mark.long
def test_switched_under_load(own: MailHost, database: Database) -> None:
    """From the pipe with either entrypoint, cold and resident, to LMTP, to a Maildir, and back; each of them stores some."""
    own.use_lmtp()
    by_lmtp = own.postconf("-h", "virtual_transport").strip()
    own.add("master.cf", "virtual unix - n n - - virtual\n")
    maildir = Mailbox(own.handler.folder / "Maildir")
    user = pwd.getpwnam(account.NAME)
    own.postconf(
        "-e",
        *(f"virtual_uid_maps=static:{user.pw_uid}", f"virtual_gid_maps=static:{user.pw_gid}", "virtual_minimum_uid=1"),
        *(f"virtual_mailbox_base={own.handler.folder}", "virtual_mailbox_maps=static:Maildir/"),
    )
    former = own.lines("master.cf")

    def entrypoint(use: Callable[[], object]) -> None:
        nonlocal former
        use()
        file = own.config / "master.cf"
        file.write_text(file.read_text().replace(former, own.lines("master.cf")))
        former = own.lines("master.cf")

    def switch(transport: str) -> None:
        own.postconf("-e", f"virtual_transport={transport}")
        own.reload()
        before = database.value(COUNT)
        wait_until(lambda: database.value(COUNT) >= before + 5, f"mail by {transport}")

    row = Mode.RESIDENT.row("switching")
    own.postconf("-e", f"virtual_transport={_PYTHON}")
    own.start()
    service = Service(own.handler)
    watch = Watching(own.handler, [str(maildir.path)])
    try:
        with Load(own, 160, pause=0.4) as load:
            switch(_PYTHON)
            service.start()
            switch(_PYTHON)
            entrypoint(own.handler.with_client)
            switch(_PYTHON)
            switch(by_lmtp)
            switch(_MAILDIR)
            entrypoint(own.handler.before.clear)
            switch(_PYTHON)
            switch(by_lmtp)
            service.stop()
            switch(_MAILDIR)
            switch(_PYTHON)
            assert load.going_on
        drain(own)
        wait_until(maildir.is_empty)
    finally:
        watch.stop()
        service.__exit__()
    add_up(own, row)
    load.ledger.check(database, row)
    assert (row.lost, row.doubled, row.bounced, row.findings) == (0, 0, 0, [])
    assert row.sent == 200
    ways = dict(database.rows("SELECT ingress, count(*) FROM pipehandler.delivery GROUP BY 1"))
    assert set(ways) == {"pipe", "lmtp", "maildir"}
    modes = {line.partition(" mode=")[2].partition(" ")[0] for line in own.handler.log_lines() if " mode=" in line}
    assert modes >= {"cold", "resident"}
    assert os.listdir(maildir.path / "cur")
    assert maildir.names("failed") == []
