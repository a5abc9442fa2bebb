"""The whole outcome table: pipe(8) must interpret each line and status as intended."""

import re

import pytest

from pipehandler.mail import outcome
from pipehandler.mail.outcome import (
    DELIVERED,
    DUPLICATE,
    QUARANTINED,
    TABLE,
    UNKNOWN_RECIPIENT,
    Outcome,
    Result,
    folded,
)
from pipehandler.mail.sysexits import DEFERRED, EX_OK

UUID = "70ca6f71-7d53-888d-89e8-d8804ed332d8"

every_outcome = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


@every_outcome
def test_code_and_status_say_the_same(row: Outcome) -> None:
    """Class 2 has status 0, class 4 one that defers, class 5 one that bounces: RFC 3463 3.1, pipe(8)."""
    assert re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", row.code)
    assert row.code[0] == ("2" if row.status == EX_OK else "4" if row.status in DEFERRED else "5")
    assert row.status == EX_OK or 64 <= row.status <= 78


@every_outcome
def test_line_fits_what_postfix_logs(row: Outcome) -> None:
    """The line is printable ASCII, and with a message id shorter than the 100 bytes that Postfix logs of a delivery."""
    line = row.line(UUID)
    assert re.fullmatch(r"[ -~]+", line)
    assert len(line) < 100
    assert line == f"{row.code} {row.text} {UUID}"
    assert row.line() == f"{row.code} {row.text}"


@every_outcome
def test_text_tells_nothing_about_the_inside(row: Outcome) -> None:
    """Postfix shows the text to the outside sender: plain words, without a host name, path, address or SQL."""
    assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", row.text)
    assert not re.search(r"postgres|database|sql|python|pipehandler|table|select", row.text)


def test_actions_are_distinct_words() -> None:
    """Each outcome has its own name, so that the log and the metrics distinguish them."""
    actions = [row.name for row in TABLE]
    assert len(set(actions)) == len(actions)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", action) for action in actions)


def test_only_policy_bounces() -> None:
    """Only what the operator configured returns mail to its sender: an unknown recipient, and a message too large. From a
    Maildir nothing returns: there these two and a third are put aside."""
    bounces = {row for row in TABLE if row.status not in {EX_OK, *DEFERRED}} - {outcome.UNSTORABLE}
    assert bounces == {outcome.UNKNOWN_RECIPIENT, outcome.TOO_LARGE}


def test_table_is_whole() -> None:
    """Every outcome of the module is in the table."""
    assert {each for each in vars(outcome).values() if isinstance(each, Outcome)} == set(TABLE)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ((DUPLICATE, DELIVERED), DELIVERED),
        ((DELIVERED, DUPLICATE), DELIVERED),
        ((DUPLICATE, QUARANTINED), QUARANTINED),
        ((DUPLICATE, DUPLICATE), DUPLICATE),
        ((UNKNOWN_RECIPIENT, DUPLICATE), DUPLICATE),
        ((UNKNOWN_RECIPIENT, DUPLICATE, DELIVERED), DELIVERED),
        ((UNKNOWN_RECIPIENT, UNKNOWN_RECIPIENT), UNKNOWN_RECIPIENT),
    ],
)
def test_one_status_for_all_recipients(outcomes: tuple[Outcome, ...], expected: Outcome) -> None:
    """A newly stored result takes precedence, a refused one comes last; the log gets both reasons, and the id of the
    chosen one."""
    result = folded([Result(each, message=f"{number}", reason=each.name) for number, each in enumerate(outcomes)])
    assert result.outcome == expected
    assert result.message == str(outcomes.index(expected))
    refused = outcomes.count(UNKNOWN_RECIPIENT)
    reason = f"{refused} of {len(outcomes)} recipients have no live lease" if refused else ""
    assert result.reason == (
        reason if expected == UNKNOWN_RECIPIENT else "; ".join(filter(None, [reason, expected.name]))
    )
