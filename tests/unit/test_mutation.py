"""The mutants of script/mutation: each is a small change, and the list of equivalent ones names mutants that exist."""

import ast

from mutation.__main__ import EQUIVALENT, all_mutants, equivalent
from mutation.mutant import Mutant
from mutation.python_mutants import mutants as python_mutants
from mutation.sql_mutants import mutants as sql_mutants

PYTHON = '''
LIMIT: int = 5
NAMES = frozenset({"a", "b"})

def read(text: str | None, strict: bool = True) -> int:
    """Text for people."""
    try:
        if text is None or (strict and not text):
            raise ValueError(f"{text} is wrong")
        print("several words", end="")
    except (OSError, ValueError):
        return 0
    return len(text) + 1
'''

SQL = """
CREATE OR REPLACE FUNCTION pipehandler.f(a integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- a = 1 AND b = 2
    IF a >= 1 THEN
        DELETE FROM t WHERE t.a = 'a = 1'
           AND t.b IS NULL;
    END IF;
    RETURN NOT EXISTS (SELECT FROM t ORDER BY t.a FOR UPDATE);
END
$$;
COMMENT ON FUNCTION pipehandler.f(integer) IS
'Deletes where a = 1;
it''s true, and 2 > 1.';
"""


def changes(mutants: list[Mutant]) -> set[tuple[str, str]]:
    """The text that each mutant replaces, and its replacement."""
    return {(mutant.text[mutant.start : mutant.end].strip(), mutant.replacement) for mutant in mutants}


def test_python() -> None:
    """Every kind of change, none of them in text for people, and each is valid Python."""
    found = python_mutants("a.py", PYTHON)
    assert changes(found) == {
        ("5", "6"),
        ('"a",', ""),
        (', "b"', ""),
        ('"a"', "''"),
        ('"b"', "''"),
        ("True", "False"),
        ("is", "is not"),
        ("or", "and"),
        ("text is None", "False"),
        ("strict and not text", "False"),
        ("and", "or"),
        ("strict", "True"),
        ("not text", "True"),
        ("not text", "(text)"),
        ("text is None or (strict and not text)", "(not (text is None or (strict and not text)))"),
        ('raise ValueError(f"{text} is wrong")', "pass"),
        ('print("several words", end="")', "pass"),
        (', end=""', ""),
        ("OSError,", ""),
        (", ValueError", ""),
        ("0", "1"),
        ("1", "2"),
        ("+", "-"),
        ("len(text) + 1", "None"),
    }
    for mutant in found:
        ast.parse(mutant.mutated)


def test_sql() -> None:
    """Every kind of change; comments and strings are unchanged."""
    assert changes(sql_mutants("a.sql", SQL)) == {
        ("SECURITY DEFINER", ""),
        ("SET search_path = pg_catalog, pg_temp", ""),
        (">=", ">"),
        ("1", "2"),
        ("a >= 1", " NOT (a >= 1) "),
        ("=", "<>"),
        ("DELETE FROM t WHERE t.a = 'a = 1'\n           AND t.b IS NULL;", "NULL;"),
        ("AND", "OR"),
        ("IS NULL", "IS NOT NULL"),
        ("NOT EXISTS", "EXISTS"),
        ("ORDER BY t.a", ""),
        ("FOR UPDATE", ""),
    }


def test_same_line_twice() -> None:
    """Two changes of equal lines have different keys."""
    keys = [mutant.key for mutant in python_mutants("a.py", "f(x=1)\nf(x=1)\n")]
    assert len(keys) == len(set(keys)) == 6


def test_equivalent_ones_exist() -> None:
    """Each key in the list is that of a mutant of the present code, and has a reason."""
    listed = equivalent()
    python, sql = all_mutants()
    assert set(listed) <= {mutant.key for mutant in [*python, *sql]}, f"remove from {EQUIVALENT.name} what is gone"
    assert all(len(reason.split()) > 3 for reason in listed.values())
