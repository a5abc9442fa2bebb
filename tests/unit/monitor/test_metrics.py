"""The names of the metrics."""

import re

import pytest

from pipehandler.monitor.metrics import METRICS

# After https://prometheus.io/docs/practices/naming/ and the checks of `promtool check metrics`.

BASE_UNITS = {"seconds", "bytes"}
NO_UNITS = {"ms", "us", "ns", "s", "sec", "min", "m", "h", "d", "b", "kb", "mb", "milliseconds", "minutes", "octets", "kilobytes"}  # fmt: skip
TYPES = {"counter", "gauge", "histogram", "summary"}
OF_HISTOGRAMS = {"bucket", "count", "sum", "le", "quantile"}


@pytest.mark.parametrize("name", METRICS)
def test_names(name: str) -> None:
    """Lower case, our prefix, base units last, _total only for counters, no suffix reserved for another type, and a
    help text."""
    _, kind, labels, meaning = METRICS[name]
    words = name.split("_")
    assert re.fullmatch(r"pipehandler(_[a-z]+)+", name)
    assert all(re.fullmatch(r"[a-z]+", label) for label in labels)
    assert (words[-1] == "total") == (kind == "counter")
    assert not set(words) & (NO_UNITS | TYPES | OF_HISTOGRAMS)
    assert not set(labels) & OF_HISTOGRAMS
    unit = BASE_UNITS & set(words)
    assert not unit or words[-1 - (kind == "counter")] in unit
    assert kind != "histogram" or unit
    assert re.fullmatch(r"[A-Z0-9].*\.", meaning)
    assert "|" not in meaning
    assert "\n" not in meaning


def test_ages_are_times() -> None:
    """A time is exported as seconds since 1970, so that it stays true however old the number is."""
    assert not [name for name in METRICS if "age" in name.split("_")]
