"""Text for a terminal: columns line up, and the terminal interprets nothing in a foreign value."""

import ast
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipehandler
from pipehandler.cli.terminal import block, safe, say, say_json, shorten, table, width


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("abc", 3),
        ("뉴스레터", 8),
        ("ニュース", 8),
        ("e\u0301", 1),  # a combining accent
        ("한", 2),
        ("\u1112\u1161\u11ab", 2),  # the same, decomposed, as macOS names files
        ("\u200bx\u200c\u034f", 1),  # padding in the previews of newsletters
        ("❤\ufe0f", 1),
        ("a\u00adb", 3),
        ("", 0),
    ],
)
def test_width(text: str, columns: int) -> None:
    """Wide characters (UAX 11) take two columns, combining and invisible ones none."""
    assert width(text) == columns


def test_columns_line_up() -> None:
    """Each column begins, or for numbers ends, at the position of its head, with wide characters or without."""
    text = table(["ID", "SUBJECT", "SIZE"], [[1, "뉴스레터", 7], [20, "plain", 12345], [3, None, 0]])
    assert text == [
        "ID  SUBJECT    SIZE",
        " 1  뉴스레터      7",
        "20  plain     12345",
        " 3                0",
    ]


CONTROLS = ["\x1b[31m", "\x9b31m", "\x07", "\x08", "\r", "\x00", "\x7f", "\x85", "\u202e", "\u2066"]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_not_passed_on(control: str) -> None:
    """Escape sequences (ECMA-48) and characters that turn a line around are replaced, in tables and in text."""
    for text in (safe(f"a{control}b"), shorten(f"a{control}b", 20), "".join(table(["X"], [[f"a{control}b"]]))):
        assert control[0] not in text
        assert "a" in text
        assert "b" in text


@given(st.text(), st.integers(1, 30))
def test_cut_keeps_its_columns(text: str, columns: int) -> None:
    """A cell is one line and never wider than allowed; a short one is kept, except for its white space."""
    cell = shorten(text, columns)
    assert len(cell.splitlines()) <= 1
    assert width(cell) <= columns
    if width(" ".join(safe(text).split())) <= columns and len(text) <= columns:
        assert cell == " ".join(safe(text).split())


def test_cut_shows_that_something_is_missing() -> None:
    """A shortened text ends in an ellipsis."""
    assert shorten("abcdefgh", 5) == "abcd…"
    assert shorten("뉴스레터", 5) == "뉴스…"


CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def written(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without the line break at its end."""
    text = capsys.readouterr().out
    assert text.endswith("\n")
    return text[:-1]


def test_no_character_of_these_categories_goes_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Control, format, surrogate, private use and separators of lines: none is printed, alone or between letters."""
    unsafe = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in CATEGORIES]
    assert len(unsafe) > 139_000
    passed = [char for char in unsafe if set(safe(f"a{char}b")) - set("ab \ufffd")]
    assert passed == []
    for begin in range(0, len(unsafe), 3_000):
        say("a" + "".join(unsafe[begin : begin + 3_000]) + "b")
        assert not {unicodedata.category(char) for char in written(capsys)} & set(CATEGORIES)


@pytest.mark.parametrize(
    "hidden", ["\u034f", "\u115f", "\u3164", "\ufe00", "\U000e0041", "\U000e0100", "\U000e0fff"], ids=ascii
)
def test_hidden_text_is_shown(hidden: str) -> None:
    """Characters without width, which hide text or make two addresses look alike, are replaced; one mark for a whole
    run."""
    assert safe(f"pay{hidden * 1_000}pal") == "pay\ufffdpal"


def test_everyday_text_stays() -> None:
    """Letters of any language, accents and emoji are kept."""
    for text in ("뉴스레터 소식", "Zoë e\u0301", "שלום", "हिन्दी", "❤\ufe0f 100 %", "a\u00a0b"):
        assert safe(text) == text


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"], ids=ascii)
def test_one_line_stays_one_line(ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No value begins a line; in text of several lines each has a margin."""
    say(f"subject{ending}Delivery: forged")
    assert len(written(capsys).splitlines()) == 1
    assert all(line.startswith("| ") and len(line.splitlines()) == 1 for line in block(f"body{ending}Delivery: forged"))


def test_block_loses_nothing() -> None:
    """A long line continues on the next, an empty one stays."""
    assert list(block("a\n\n" + "b" * 1_500)) == ["| a", "| ", "| " + "b" * 1_000, "| " + "b" * 500]


def test_a_line_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """A value of any length, of the widest or narrowest characters, is shortened in time that grows only with the
    line."""
    for text in ("x" * 10_000_000, "뉴" * 1_000_000, "e" + "\u0301" * 1_000_000, "\x1b" * 1_000_000):
        say(text)
        line = written(capsys)
        assert len(line) <= 32_001
        assert line.endswith("…")


@given(st.text(st.characters()))
def test_json_keeps_its_values(text: str) -> None:
    """What a terminal would interpret is escaped in JSON, and reads back unchanged."""
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("click.echo", printed.append)
        say_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(printed[0]) == [text]
    assert not {unicodedata.category(char) for char in printed[0]} & set(CATEGORIES)


def test_nothing_is_printed_around_it() -> None:
    """Only cli/terminal.py prints; elsewhere click.echo has constants, and octets are written by `raw` and `attachment`."""
    found = []
    folder = Path(pipehandler.__file__).parent
    for path in [path for path in folder.rglob("*.py") if path.name != "terminal.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in ("click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"):
                constant = all(isinstance(argument, ast.Constant) for argument in node.args)
                found += [] if constant else [f"{path.relative_to(folder)}:{node.lineno}"]
            elif name == "sys.stdout.buffer.write":
                assert path.name == "mailbox.py"
    assert found == []
