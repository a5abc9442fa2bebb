"""Which message is next: no message holds up the others, and an outage costs few attempts."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pipehandler.maildir.queue import FIRST_PAUSE, FIRST_WAIT, LONGEST_PAUSE, LONGEST_WAIT, Key, Queue

A, B, C = (0, "a"), (0, "b"), (1, "a")


def queue(*keys: Key) -> Queue:
    """A queue of these messages."""
    made = Queue()
    made.add(keys)
    return made


def test_each_is_taken_once_in_order() -> None:
    """Also when it is seen again before it is done."""
    found = queue(A, B, A)
    assert found.next(0) == A
    found.add([A, B, C])
    assert [found.next(0), found.next(0), found.next(0)] == [B, C, None]
    assert found.due() == math.inf


def test_one_that_failed_waits_longer_and_longer() -> None:
    """Up to a limit; the others go on after a short pause, and a success ends that."""
    found = queue(A, B)
    assert found.next(0) == A
    found.failed(A, 0)
    assert (found.next(0), found.due()) == (None, FIRST_PAUSE)
    assert found.next(FIRST_PAUSE) == B
    found.done(B)
    assert (found.next(0.9), found.due()) == (None, FIRST_WAIT)
    now, waits = 0.0, []
    for _ in range(15):
        before, now = now, found.due()
        assert found.next(now) == A
        found.failed(A, now)
        found.done((9, "another"))
        waits.append(now - before)
    assert waits[:4] == [FIRST_WAIT, FIRST_WAIT * 2**1, FIRST_WAIT * 4, FIRST_WAIT * 8]
    assert waits[-1] == LONGEST_WAIT


def test_an_outage_costs_few_attempts() -> None:
    """One at a time, with growing pauses, whatever the number of messages; afterwards all go on at once."""
    found = queue(*((0, str(number)) for number in range(1000)))
    now, attempts = 0.0, 0
    while now < 3600:
        key = found.next(now)
        assert key is not None
        assert attempts == 0 or found.next(now) is None
        found.failed(key, now)
        attempts += 1
        now = found.due()
    assert attempts <= 3600 / LONGEST_PAUSE + 10
    key = found.next(now)
    assert key is not None
    found.done(key)
    assert all(found.next(now) for _ in range(900))


def test_what_is_gone_is_forgotten() -> None:
    """In its own Maildir alone, and not while it is under way."""
    found = queue(A, B, C)
    assert found.next(0) == A
    found.forget_missing(0, set())
    assert len(found) == 2
    assert found.next(0) == C
    found.failed(A, 0)
    found.forget_missing(0, set())
    assert len(found) == 1


def test_one_that_could_not_be_started_is_the_first() -> None:
    """As before it was taken."""
    found = queue(A, B)
    assert found.next(0) == A
    found.put_back(A)
    assert found.next(0) == A


@given(st.lists(st.tuples(st.sampled_from(["done", "failed", "look_later", "gone"]), st.integers(0, 4))))
def test_every_message_is_tried_until_it_is_done(steps: list[tuple[str, int]]) -> None:
    """Whatever happens to the others: it is taken at the time that `due` names, and never twice at once."""
    found = queue(*((0, str(number)) for number in range(5)))
    now, done = 0.0, set()
    for step, _ in steps:
        if found.due() == math.inf:
            break
        now = max(now, found.due())
        key = found.next(now)
        assert key is not None
        assert key not in done
        if step == "done":
            done.add(key)
            found.done(key)
        elif step == "gone":
            done.add(key)
            found.done(key, worked=False)
        elif step == "failed":
            found.failed(key, now)
        else:
            found.look_later(key, now)
    assert len(found) == 5 - len(done)
    assert (found.due() == math.inf) == (len(done) == 5)
