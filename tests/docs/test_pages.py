"""The pages are complete: none is missing from the list, every link has a target, every file that is named exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import GENERATED, LANGUAGES, PAGES, REPOSITORY, all_blocks, before, blocks, prose, read

PRESENT = [page for page in PAGES if page != "CHANGELOG.md"]
"""The pages that describe the present: a list of changes names files of its time."""

SOURCES = sorted(
    path for folder in ("pipehandler", "tests", "bench", "script") for path in (REPOSITORY / folder).rglob("*.py")
)
FILES = {
    f"/{path.relative_to(REPOSITORY)}"
    for folder in (".ci", "bench", "docs", "pipehandler", "postfix", "script", "sql", "tests")
    for path in (REPOSITORY / folder).rglob("*")
    if "__pycache__" not in path.parts
} | {f"/{path.name}" for path in REPOSITORY.iterdir() if path.is_file()}


def test_pages_are_listed() -> None:
    """Each page is listed once, and nothing else is."""
    found = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").rglob("*.md")}
    found |= {path.name for path in REPOSITORY.glob("*.md")}
    assert sorted(PAGES) == sorted(found)


def test_every_page_can_be_reached() -> None:
    """Links lead from README to every page."""
    reached, ahead = set(), ["README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached and page in PAGES:
            reached.add(page)
            ahead += [str(target.relative_to(REPOSITORY)) for target, _ in _links(page)]
    assert reached == set(PAGES)


def _links(page: str) -> list[tuple[Path, str]]:
    """The relative links of a page: the file and the anchor."""
    targets = [target.partition("#") for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if ":" not in target]
    folder = (REPOSITORY / page).parent
    return [((folder / path).resolve() if path else REPOSITORY / page, anchor) for path, _, anchor in targets]


def _anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(str(path.relative_to(REPOSITORY))), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """Every relative link leads to a file that exists, and its anchor to a heading."""
    links = _links(page)
    assert [str(path) for path, _ in links if not path.exists()] == []
    assert [f"{path.name}#{anchor}" for path, anchor in links if anchor and anchor not in _anchors(path)] == []


@pytest.mark.parametrize("page", PRESENT)
def test_form(page: str) -> None:
    """A page has one title, known languages, lines of prose that fit, and no block that the tests would overlook."""
    text = prose(page)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert [block.place for block in blocks(page) if block.language not in LANGUAGES] == []
    assert "```" not in text
    long = [number for number, line in enumerate(text.splitlines(), 1) if len(line) > 120 and not line.startswith("|")]
    assert page in GENERATED or long == []


def test_every_claim_about_security_names_its_test() -> None:
    """Each row that states what is prevented, or how much of a resource is used, links the test that shows it."""
    security = _rows("docs/security.md", "| what is prevented | test |")
    shares = _rows("docs/shares.md", "| of | at most | set by | test |")
    assert (len(security) > 20, len(shares) > 30) == (True, True)
    assert [row for row in security + shares if "](../tests/" not in row and "](shares.md)" not in row] == []


def _rows(page: str, head: str) -> list[str]:
    """The rows of all tables of a page that have this head."""
    tables = re.findall(rf"^{re.escape(head)}\n\|[-|]+\n((?:\|.*\n)+)", read(page), re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


def test_length() -> None:
    """README is read in three minutes, ARCHITECTURE in an evening with the code."""
    assert len(read("README.md").splitlines()) <= 120
    assert len(read("ARCHITECTURE.md").splitlines()) <= 130


def test_pages_name_what_comes_before() -> None:
    """A page with commands builds on the pages before it, and those are pages with commands."""
    with_commands = [page for page in PAGES if blocks(page, "sh")]
    assert [page for page in with_commands if not before(page)] == ["README.md", "docs/install.md"]
    for page in with_commands[2:]:
        assert before(page)[0] == "docs/install.md"
        assert set(before(page)) <= set(with_commands) - {page}


def test_every_kind_of_block_is_there() -> None:
    """The blocks that the other tests execute are found."""
    assert all(all_blocks(language) for language in LANGUAGES)


def _exists(name: str) -> bool:
    """Whether a file has this name, or this end of its path."""
    return any(file.endswith(f"/{name}") for file in FILES)


@pytest.mark.parametrize("page", PRESENT)
def test_files_that_pages_name(page: str) -> None:
    """Every file of the repository that a page names in a code span exists."""
    named = re.findall(r"`([\w./-]+\.(?:py|sql))`", prose(page))
    missing = [name for name in named if not _exists(name)]
    paths = re.findall(r"`((?:bench|docs|pipehandler|script|sql|tests)/[\w./-]*)`", prose(page))
    assert missing + [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_files_that_docstrings_name() -> None:
    """Every file that a docstring names exists."""
    missing = [
        f"{source.relative_to(REPOSITORY)}:{line}: {name}"
        for source in SOURCES
        for line, text in _docstrings(source)
        for name in re.findall(r"(?<![\w*/.])[\w-][\w./-]*\.(?:py|sql)\b", text)
        if not _exists(name)
    ]
    assert missing == []


def _docstrings(source: Path) -> Iterator[tuple[int, str]]:
    """The docstrings of a module, also those of its constants: line and text."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text
