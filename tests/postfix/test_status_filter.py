"""The status filter: only our own two texts bounce mail, whichever program ends with whichever status and output."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import account
from harness.exits import OUTPUTS, SIGNALS, End, Exits
from harness.missing import missing

from pipehandler.mail.outcome import TABLE, UNSTORABLE

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "postfix" / "pipehandler_status_filter.example"
FROM_PIPE = [row for row in TABLE if row is not UNSTORABLE]
OURS = [row.line() for row in FROM_PIPE if row.code.startswith("5.")]
SAMPLE = [1, 2, 63, 64, 67, 70, 75, 77, 79, 120, 126, 127, 255]


@pytest.fixture(scope="module")
def exits(_postfix: None) -> Iterator[Exits]:
    """A running Postfix."""
    with account.folder("pipehandler-mx-") as folder:
        made = Exits(folder, (*OUTPUTS, *(f"{line}\n" for line in OURS)))
        made.postfix.start()
        yield made
        made.postfix.abort()


def filtered(text: str) -> str:
    """The result of the table for a text, "" if no rule matches."""
    if shutil.which("postmap") is None:
        missing("postmap")
    done = subprocess.run(["postmap", "-q", text, f"regexp:{EXAMPLE}"], capture_output=True, text=True)
    assert not done.stderr
    return done.stdout.rstrip("\n")


def test_only_our_texts_bounce(exits: Exits) -> None:
    """Statuses and signals with twenty outputs: none bounces; status 0 is always sent, whatever the output."""
    hows = [*map(str, SAMPLE), *(f"s{number}" for number in SIGNALS[::4])]
    ends = [End(how, output) for how in hows for output in range(len(OUTPUTS))]
    results = exits.results(ends, 240)
    assert [(end, result) for end, result in results.items() if result[1] != "deferred"] == []
    assert {dsn[:2] for dsn, _, _ in results.values()} == {"4."}


def test_our_texts_bounce(exits: Exits) -> None:
    """The two outcomes that bounce mail still do, with their codes; status 0 is always sent."""
    ours = range(len(OUTPUTS), len(OUTPUTS) + len(OURS))
    results = exits.results([End("67", output) for output in ours], 60)
    assert [f"{dsn} {text}" for dsn, _, text in results.values()] == OURS
    assert {status for _, status, _ in results.values()} == {"bounced"}
    results = exits.results([End("0", output) for output in range(len(OUTPUTS))], 60)
    assert {status for _, status, _ in results.values()} == {"sent"}


@pytest.mark.parametrize("line", [row.line() for row in FROM_PIPE])
def test_outcomes(line: str) -> None:
    """The lines of the outcome table: those that bounce are passed unchanged, a temporary one needs no rule."""
    expected = line if line in OURS else f"4.3.0 {line[6:]}" if line.startswith("2.") else ""
    assert filtered(line) == expected
    assert filtered(f"{line} ").rstrip() == expected


@pytest.mark.parametrize(
    "text",
    [
        *(f"5.{subject}.{detail} any text" for subject in range(8) for detail in (0, 1, 7, 10, 999)),
        *(f"{line}{more}" for line in OURS for more in (".", " more", " Command output: x")),
        *(line.upper() for line in OURS),
        "5.3.0",
        "5.999.999 x",
        '5.3.0 Command died with status 120: "/opt/pipehandler/bin/python". Command output: 5.1.1 recipient unknown',
    ],
)
def test_everything_else_is_temporary(text: str) -> None:
    """No other text keeps its class 5."""
    assert filtered(text).startswith("4.3.0 ")


def test_success_has_no_rule() -> None:
    """The texts of pipe(8) itself are unchanged: Postfix warns of a rule that turns success into something else."""
    assert filtered("2.0.0 delivered via pipehandler service (2.0.0 stored x)") == ""
