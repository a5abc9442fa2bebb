"""The short form of the fault campaign: a sample of every kind."""

import importlib

import pytest

from fault.campaign import KINDS
from fault.ledger import Scale


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_lost_doubled_or_bounced(kind: str) -> None:
    """Under every kind of fault each message is stored once for each recipient, byte for byte, and none bounces."""
    row = importlib.import_module(f"fault.{kind}").run(Scale.SHORT)
    assert row.points > 0
    assert row.sent > 0
    assert (row.lost, row.doubled, row.bounced, row.findings) == (0, 0, 0, [])
