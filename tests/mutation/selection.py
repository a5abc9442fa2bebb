"""The tests to try against a mutant: those that execute its line, the fastest and the nearest first."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, TypeGuard

import coverage

from .mutant import Mutant

_QUICK_TEST = 0.15
_QUICK, FIRST, ALL = (300, 5.0), (4, 40.0), (24, 150.0)
"""The number of tests, and the seconds they may take together: of the fast ones (each of so many seconds), of the
others at first, and of these if nothing was detected."""

_FILES = 4
"""The number of test files to try if it is unknown which of their tests execute a mutant."""

LEVELS = ("unit", "property", "contract", "integration", "fault")
"""The folders of tests that are tried, in this order."""

# They compare the text of the code, not its behaviour.
_COMPARE_TEXT = (
    "tests/unit/test_path.py",
    "tests/unit/test_docstrings.py",
    "tests/unit/test_ignores.py",
    "tests/unit/test_mutation.py",
    "tests/unit/test_reference.py",
    "tests/unit/store/test_sql_files.py",
    "tests/integration/test_schema.py",
    "tests/integration/test_wheel.py",
)


class _Test(NamedTuple):
    name: str
    seconds: float

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]

    @property
    def level(self) -> int:
        return LEVELS.index(self.file.split("/")[1])


class Record:
    """The records of recording.py in `folder`: the tests that passed, and what they execute.

    package: where the package was installed.
    """

    def __init__(self, folder: Path, package: Path) -> None:
        self._package = package
        self._data = coverage.CoverageData(str(folder / "data"))
        self._data.read()
        seconds: dict[str, float] = defaultdict(float)
        failed: set[str] = set()
        self._callers: dict[str, set[str]] = defaultdict(set)
        for path in folder.glob("*.jsonl"):
            for line in map(json.loads, path.read_text("utf-8").splitlines()):
                seconds[line["test"]] += line.get("seconds", 0.0)
                if line.get("outcome", "passed") != "passed":
                    failed.add(line["test"])
                for function in line.get("functions", ()):
                    self._callers[function].add(line["test"])
        self._tests = {
            name: _Test(name, time)
            for name, time in seconds.items()
            if name not in failed and not name.startswith(_COMPARE_TEXT) and name.split("/")[1] in LEVELS
        }
        recorded = {test.file for test in self._tests.values()}
        self._unrecorded = [
            _Test(str(path), 5.0 * path.read_text("utf-8").count("\ndef test_"))
            for level in LEVELS
            for path in sorted(Path("tests", level).rglob("test_*.py"))
            if str(path) not in recorded and not str(path).startswith(_COMPARE_TEXT)
        ]

    def stages(self, mutant: Mutant) -> Iterator[list[str]]:
        """The tests to try, in the order in which they are tried: a few, and then the others."""
        sql = mutant.path.startswith("sql/")
        names = self._sql(mutant) if sql else self._python(mutant)
        module = Path(mutant.path).stem
        tests = list(_spread(_ranked((self._tests[name] for name in names if name in self._tests), module)))
        # A test that only reads a constant executes nothing.
        own = [str(path) for path in sorted(Path("tests", LEVELS[0]).rglob(f"test_{module}.py"))]
        quick = [test for test in tests if test.seconds <= _QUICK_TEST and test.file not in own]
        slow = [test for test in tests if test.seconds > _QUICK_TEST and test.file not in own]
        files = self._naming(mutant)
        unit = [test.name for test in files if test.level == 0 and test.file not in own]
        files = [test for test in files if test.level > 0]
        if sql:
            slow, files = [*files, *slow], []
        first = _within(FIRST, slow)
        more = _within(ALL, [*slow[len(first) : ALL[0] // 2], *files, *slow[max(len(first), ALL[0] // 2) :]])
        yield [*own, *unit, *(test.name for test in [*_within(_QUICK, quick), *first])]
        yield [test.name for test in more]

    @cache  # noqa: B019 # there is one record per process
    def _contexts(self, path: str) -> dict[int, list[str]]:
        file = self._package.parent / path
        return self._data.contexts_by_lineno(str(file)) if str(file) in self._data.measured_files() else {}

    def _python(self, mutant: Mutant) -> set[str]:
        """The tests that execute the line; otherwise those that execute its statement, its function, or its module."""
        contexts = self._contexts(mutant.path)
        for lines in _around(mutant):
            found = {name for line in lines for name in contexts.get(line, ()) if name}
            if found:
                return found
        return set()

    def _sql(self, mutant: Mutant) -> set[str]:
        """The tests that call the function; otherwise those that call one that names it, or name it themselves."""
        return {name for function in _callers_of(mutant) for name in self._callers[function]}

    def _naming(self, mutant: Mutant) -> list[_Test]:
        """The files of tests that were not recorded but name the module or the function, most often first."""
        words = _callers_of(mutant) if mutant.path.startswith("sql/") else {Path(mutant.path).stem}
        pattern = re.compile(rf"(?<![^\W_])({'|'.join(map(re.escape, words))})(?![^\W_])")
        counts = {test: len(pattern.findall(_text(test.file))) for test in self._unrecorded}
        own = f"test_{Path(mutant.path).stem}"
        found = [test for test in counts if counts[test]]
        return sorted(found, key=lambda test: (Path(test.file).stem != own, test.level, -counts[test]))[:_FILES]


def _within(limits: tuple[int, float], tests: list[_Test]) -> list[_Test]:
    """The first tests: at most so many, within so many seconds; at least one."""
    most, seconds = limits
    end = 0
    while end < min(len(tests), most) and (end == 0 or sum(test.seconds for test in tests[: end + 1]) <= seconds):
        end += 1
    return tests[:end]


@cache
def _text(file: str) -> str:
    return Path(file).read_text("utf-8")


def _callers_of(mutant: Mutant) -> set[str]:
    """The SQL function or view of a mutant, and those of its file that name it."""
    if not mutant.function:
        return {"roles"}
    parts = re.split(r"CREATE OR REPLACE (?:FUNCTION|VIEW) pipehandler\.", mutant.text)[1:]
    naming = {re.split(r"\W", part, maxsplit=1)[0] for part in parts if f"pipehandler.{mutant.function}" in part}
    return {mutant.function, *naming}


def _around(mutant: Mutant) -> Iterator[set[int]]:
    """The lines of a mutant, then those of each statement around it, the smallest first. For code that runs at import:
    where its names are used, then all functions of the module."""
    tree = ast.parse(mutant.text)
    within = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)
    }
    own = set(range(mutant.line, mutant.last_line + 1))
    around = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and own <= _span(node)]
    around.sort(key=lambda node: len(_span(node)))
    if own & within:
        yield own
        yield from (_span(node) & within for node in around)
    else:
        names = {name.id for node in around for name in ast.walk(node) if _is_stored(name)}
        used = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in names}
        yield used & within
    yield within
    yield set(range(1, mutant.text.count("\n") + 2))


def _span(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _is_stored(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _ranked(tests: Iterable[_Test], module: str) -> list[_Test]:
    """Tests in files named after the module first, then by level and time."""
    return sorted(tests, key=lambda test: (module not in Path(test.file).stem, test.level, test.seconds, test.name))


def _spread(tests: list[_Test]) -> Iterator[_Test]:
    """The first test of each file, then the second of each, and so on: tests of one file assert similar things."""
    files: dict[str, list[_Test]] = defaultdict(list)
    for test in tests:
        files[test.file].append(test)
    for row in zip_longest(*files.values()):
        yield from (test for test in row if test is not None)
