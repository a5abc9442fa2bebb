"""Durations as people write them."""

from datetime import timedelta

import pytest

from pipehandler.settings.duration import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("1s", 1), ("10m", 600), ("36h", 129_600), ("30d", 2_592_000), ("2w", 1_209_600)),
        *(("1d12h", 129_600), ("1h30m", 5_400), ("1w1d1h1m1s", 694_861)),
    ],
)
def test_duration(text: str, seconds: int) -> None:
    """A number and a unit, or several, the greatest unit first."""
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "10", "m", "0m", "-1m", "1.5h", "1 h", "1M", "1y", "٣m", "30m1h", "1h1h", "1h30", "1d 12h", "999999999999w"],
)
def test_no_duration(text: str) -> None:
    """Everything else is refused, with what is expected."""
    with pytest.raises(
        ValueError, match=r"^invalid duration '.*': expected a number and a unit \(s, m, h, d, w\)"
    ) as refused:
        duration(text)
    assert repr(text) in str(refused.value)
