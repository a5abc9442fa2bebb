"""The short form of the fault campaign: a sample of every kind."""

import importlib

import pytest

from fault.campaign import runs
from fault.ledger import Mode, Scale

_MARKS = {
    ("mailhost", Mode.CLIENT): pytest.mark.long,  # differs from the resident mode in the process that Postfix starts
    ("mailhost", Mode.RESIDENT): pytest.mark.long,  # the same
    ("standby", Mode.RESIDENT): pytest.mark.long,  # the sessions are those of the cold mode
    ("patroni", Mode.COLD): pytest.mark.long,  # minutes, and packages that no other test needs
    ("pair", Mode.COLD): pytest.mark.long,  # minutes, too
    ("files", Mode.COLD): pytest.mark.unmeasured,
}
_RUNS = [pytest.param(*each, id=f"{each[0]}-{each[1].value}", marks=_MARKS.get(each, ())) for each in runs()]


@pytest.mark.parametrize(("kind", "mode"), _RUNS)
def test_nothing_lost_doubled_or_bounced(kind: str, mode: Mode) -> None:
    """Under every kind of fault each message is stored once for each recipient, byte for byte, and none bounces; in
    all modes."""
    row = importlib.import_module(f"fault.{kind}").run(Scale.SHORT, mode)
    assert row.points > 0
    assert row.sent > 0
    assert (row.lost, row.doubled, row.bounced, row.findings) == (0, 0, 0, [])
