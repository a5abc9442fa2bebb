"""How `script/second-opinion` compares our reading with that of other parsers; `script/matrix long` runs it."""

import pytest

from corpus import second_opinion
from corpus.messages import table


def test_each_kind_has_a_reason() -> None:
    """Each row has a kind that is described, each kind has a row, and the description names the parser that is
    right."""
    kinds = table("second_opinion_kinds.tsv")
    assert {kind for kind, _ in kinds} == set(second_opinion.explained().values())
    assert {who for _, who in kinds} <= {"ours", "ambiguous"}, "what we read wrongly is to be repaired"


@pytest.mark.parametrize(
    ("field", "left", "right", "same"),
    [
        ("text", "a\r\n b\xa0c\n", "a b c", True),
        ("text", "a b", "ab", False),
        ("subject", "", None, True),
        ("subject", "A", "a", False),
        ("to", [["A  B", "X@y.example"]], [["A B", "x@Y.example"]], True),
        ("to", [["A", "x@y.example"]], [["a", "x@y.example"]], False),
        ("date", "2026-11-26T08:00:00.123+00:00", "2026-11-26T08:00:00+00:00", True),
        ("date", "2026-11-26T08:00:00+00:00", "2026-11-26T08:00:01+00:00", False),
        ("date", None, "!TypeError", False),
        ("message_id", "a@b", "<a@b>", True),
        ("attachments", [["n", 1, "d"], ["m", 2, "e"]], [["m", 2, "e"], ["n", 1, "d"]], True),
        ("attachments", [["n", 1, "d"]], [["n", None, None]], True),
        ("attachments", [["n", 1, "d"]], [["n", 1, "e"]], False),
        ("attachments", [["n", 1, "d"]], [], False),
        ("attachments", [], [["n", None, None]], False),
    ],
)
def test_what_is_equal(field: str, left: object, right: object, same: bool) -> None:
    """The normalisation hides differences of form and no others."""
    assert second_opinion.equal(field, second_opinion.normal(field, left), second_opinion.normal(field, right)) is same
