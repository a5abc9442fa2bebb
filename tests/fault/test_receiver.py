"""Every system call of the LMTP receiver fails, or is where it is killed: a client has all its replies, or none.

What it answered 250 for is stored; what it deferred, or did not answer, is stored once when it comes again. The receiver,
or the one that replaces it, serves the next client. strace(1) is attached to it for one message each time.
"""

from collections import Counter

import pytest
from harness.database import Database
from harness.handler import Handler
from harness.lmtp import Receiving, receiving
from harness.service import wait_until

from fault.injection import Call, attached, calls, letter, sample

RECIPIENTS = ("a@example.com", "b@example.com")
FAULTS = ("error=EIO", "error=ENOMEM", "signal=SIGKILL", "error=EMFILE", "error=EPIPE", "error=EAGAIN", "error=EINTR")
_NEVER = frozenset({"brk", "futex", "getpid", "gettid", "munmap", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn"})
"""Calls that cannot fail, or not for any of these reasons."""

_OF_MEMORY = frozenset({"mmap", "mremap", "mprotect"})


def _replies(lmtp: Receiving, raw: bytes) -> list[str]:
    """The replies behind the final dot; [] if the connection closed without one."""
    return [reply[:3] for reply in lmtp.deliver(raw, *RECIPIENTS)]


def _traced(lmtp: Receiving) -> list[Call]:
    """The calls of the receiver for one message, from the connection of its client on."""
    file = lmtp.handler.folder / "attached"
    with attached(lmtp.receiver(), file):
        assert _replies(lmtp, letter("traced").raw) == ["250", "250"]
    return [each for each in calls(file) if each.name not in _NEVER]


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)])
def test_every_call(handler: Handler, database: Database, whole: bool) -> None:
    """Each call with each fault; script/test has a sample, with one fault for each call."""
    seen: Counter[str] = Counter()
    with receiving(handler) as lmtp:
        assert _replies(lmtp, letter("first").raw) == ["250", "250"]
        found = _traced(lmtp)
        assert {"accept4", "recvfrom", "memfd_create", "connect", "sendmsg"} <= {each.name for each in found}
        points = [
            (call, fault)
            for turn, call in enumerate(found if whole else sample(found, 24))
            for fault in (FAULTS if whole else [FAULTS[turn % len(FAULTS)]])
            if call.name not in _OF_MEMORY or fault in ("error=ENOMEM", "signal=SIGKILL")
        ]
        for number, (call, fault) in enumerate(points):
            sent = letter(f"p{number:04}")
            where = f"{fault} at {call}"
            pid = lmtp.receiver()
            with attached(pid, handler.folder / "attached", call, f"{fault}:when={call.number}"):
                replies = _replies(lmtp, sent.raw)
            assert replies in ([], ["250", "250"], ["451", "451"], ["452", "452"]), where
            stored = database.value(
                "SELECT count(*) FROM pipehandler.delivery JOIN pipehandler.message m ON m.day = delivery.day"
                " AND m.id = delivery.message WHERE m.message_id = %s",
                f"{sent.name}@example.org",
            )
            assert stored == 2 or replies != ["250", "250"], where
            seen[replies[0] if replies else "closed"] += 1
            wait_until(lambda: lmtp.service.ready())
            assert _replies(lmtp, sent.raw) == ["250", "250"], where
        assert lmtp.service.status()["died"] == 0  # of the workers
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2 * (2 + len(points))
    assert seen["closed"]
    assert seen["250"]
