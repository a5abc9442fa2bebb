"""The mutants of a file of sql/code: each with one small change of what a function, a view or a grant does.

A change that PostgreSQL does not accept is found when it is tried (trial.py), and is not counted.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from .mutant import Mutant, numbered

_SILENT = re.compile(r"--[^\n]*|COMMENT ON(?:[^';]|'(?:[^']|'')*')*;|'(?:[^']|'')*'|\"[^\"]*\"")
"""Comments and strings: nothing is changed in them. Strings have no $$ here."""

_OBJECT = re.compile(r"CREATE OR REPLACE (?:FUNCTION|VIEW) pipehandler\.(\w+)")

_SMALL_WORDS = {
    "AND": "OR",
    "OR": "AND",
    "IS NULL": "IS NOT NULL",
    "IS NOT NULL": "IS NULL",
    "IS DISTINCT FROM": "IS NOT DISTINCT FROM",
    "IS NOT DISTINCT FROM": "IS DISTINCT FROM",
    "NOT EXISTS": "EXISTS",
    "EXISTS": "NOT EXISTS",
    "NOT": "",
    "FOUND": "(NOT FOUND)",
    "true": "false",
    "false": "true",
    "least": "greatest",
    "greatest": "least",
    "min": "max",
    "max": "min",
    "DISTINCT": "",
    "LEFT JOIN": "JOIN",
    "STRICT": "",
    "SECURITY DEFINER": "",
    "<=": "<",
    ">=": ">",
    "<>": "=",
    "<": "<=",
    ">": ">=",
    "=": "<>",
}
_WORD = re.compile(
    r"(?<![\w.])(?:"
    + "|".join(
        rf"{word}(?!\w)".replace(" ", r"\s+")
        for word in sorted(_SMALL_WORDS, key=len, reverse=True)
        if word[0].isalpha()
    )
    + r")|(?<![<>=:!@?|&-])(?:<=|>=|<>|<|>|=)(?![<>=@?|&])"
)
_NUMBER = re.compile(r"(?<![\w.$\[:])\d+(?![\w.\]])")
_LINES = {
    "SET": re.compile(r"^SET \w+ = [^\n]*\n", re.MULTILINE),
    "conjunct": re.compile(r"(?<=\n) *(?:AND|OR) [^\n;]*(?=\n)"),
    "clause": re.compile(
        r"(?<=\s)(?:FOR (?:NO KEY |KEY )?(?:UPDATE|SHARE)(?: OF \w+)?(?: SKIP LOCKED)?|ON CONFLICT [^\n;]*DO NOTHING"
        r"|ORDER BY [^\n;)]*?(?= FOR |[\n;)])|LIMIT \w+|FILTER \([^\n]*?\))"
    ),
    "statement": re.compile(
        r"(?<=\n)[ ]*(?:PERFORM|INSERT INTO|UPDATE|DELETE FROM|RAISE|RETURN QUERY|GET DIAGNOSTICS|\w+(?:\.\w+)? :=|REVOKE|GRANT)\b"
        r"[^;]*;"
    ),
}


def of(repository: Path, path: str) -> list[Mutant]:
    """All mutants of a file of the repository."""
    return mutants(path, (repository / path).read_text("utf-8"))


def mutants(path: str, text: str) -> list[Mutant]:
    """All mutants of a file."""
    return numbered(
        Mutant(path, _object(text, start), kind, text, start, end, replacement)
        for kind, start, end, replacement in sorted(_changes(text), key=lambda change: change[1:])
    )


def _changes(text: str) -> Iterator[tuple[str, int, int, str]]:
    # Comments and strings become blanks, so that offsets stay the same.
    blank = _SILENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    blank = blank.replace("CREATE OR REPLACE", " " * len("CREATE OR REPLACE"))
    for found in _WORD.finditer(blank):
        word = " ".join(found[0].split())
        if not _is_assignment(blank, found.start(), word):
            yield "comparison" if not word[0].isalpha() else "word", *found.span(), _SMALL_WORDS[word]
    for found in _NUMBER.finditer(blank):
        yield "constant", *found.span(), str(int(found[0]) + 1)
    for kind, pattern in _LINES.items():
        for found in pattern.finditer(blank):
            statement = kind == "statement" and found[0].lstrip().partition(" ")[0] not in ("GRANT", "REVOKE")
            yield kind, *found.span(), "NULL;" if statement else ""
    for found in re.finditer(r"(?<!END )\b(?:ELS)?IF\b(?! (?:NOT )?FOUND)(.*?)\bTHEN\b", blank, re.DOTALL):
        yield "condition", *found.span(1), f" NOT ({text[slice(*found.span(1))].strip()}) "


def _is_assignment(blank: str, at: int, word: str) -> bool:
    """Whether this is the = of UPDATE SET, or of a setting, or the AND of BETWEEN."""
    line = blank[blank.rfind("\n", 0, at) + 1 : at]
    if word == "AND":
        return "BETWEEN" in line.rpartition("AND")[2]
    if word != "=":
        return False
    before = blank[:at]
    clause = max(before.rfind(each) for each in ("\n       SET ", "\n   SET ", "\nSET ", " SET "))
    return clause > max(before.rfind(each) for each in ("WHERE", "FROM", "SELECT", "WHEN", ";", " ON"))


def _object(text: str, at: int) -> str:
    """The function or view at an offset: the last one that begins before it."""
    names = _OBJECT.findall(text, 0, at + 1)
    return names[-1] if names else ""
