"""The mutants of a Python file: each with one small change of what it does."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from .mutant import Mutant, numbered

_COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}

_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.BitOr: (r"\|", "&"),
    ast.BitAnd: ("&", "|"),
}

_SMALL = 10
"""Numbers below it become larger by one, others become 0."""

_ANNOTATIONS = frozenset({"annotation", "returns", "decorator_list", "bases"})
_NOT_RUN = frozenset({"TYPE_CHECKING", "overload"})


def mutants(path: str, text: str) -> list[Mutant]:
    """All mutants of a file. Text for people or for mypy has none: docstrings, texts of several words, annotations."""
    return numbered(_File(path, text).walk(ast.parse(text), ""))


def of(repository: Path, path: str) -> list[Mutant]:
    """All mutants of a file of the repository."""
    return mutants(path, (repository / path).read_text("utf-8"))


class _File:
    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text
        self._octets = [line.encode() for line in text.splitlines(keepends=True)]
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def _offset(self, line: int, column: int) -> int:
        """The offset for a line (from 1) and column (in octets) of ast."""
        return self._starts[line - 1] + len(self._octets[line - 1][:column].decode())

    def _span(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _source(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._text[start:end]

    def walk(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        """The mutants of a node and of all below it; function: the qualified name of where it is."""
        for kind, start, end, replacement in self._changes(node):
            yield Mutant(self._path, function, kind, self._text, start, end, replacement)
        for field, value in ast.iter_fields(node):
            if field in _ANNOTATIONS:
                continue
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr) or _is_not_run(child):
                    continue  # the places inside an f-string are not known before Python 3.12
                name = getattr(child, "name", "") if isinstance(child, _NAMED) else ""
                yield from self.walk(child, f"{function}.{name}".strip("."))

    def _changes(self, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        match node:
            case ast.Compare(left=left, ops=operators, comparators=others):
                if isinstance(others[0], ast.Tuple):
                    yield from self._elements(others[0].elts)
                for one, operator, other in zip([left, *others], operators, others, strict=False):
                    yield from self._operator("comparison", one, other, *_COMPARISONS[type(operator)])
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _ARITHMETIC:
                yield from self._operator("arithmetic", left, right, *_ARITHMETIC[type(operator)])
            case ast.BoolOp(op=operator, values=values):
                words = ("and", "or") if isinstance(operator, ast.And) else ("or", "and")
                for one, other in itertools.pairwise(values):
                    yield from self._operator("and-or", one, other, *words)
                for value in values:
                    yield ("operand", *self._span(value), str(isinstance(operator, ast.And)))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield ("not", *self._span(node), f"({self._source(operand)})")
            case ast.Constant(value=value) if value is not None and value is not Ellipsis:
                yield from self._constant(node, value)
            case ast.Set(elts=elements):
                yield from self._elements(elements)
            case ast.ExceptHandler(type=ast.Tuple(elts=elements)):
                yield from self._elements(elements)
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    if keyword.arg:
                        yield from self._without("argument", *self._span(keyword))
                for argument in node.args:
                    if isinstance(argument, ast.Tuple):
                        yield from self._elements(argument.elts)
                if isinstance(node.func, ast.Name) and node.func.id == "suppress":
                    yield "handler", self._span(node.args[0])[0], self._span(node.args[-1])[1], ""
            case _:
                yield from self._flow(node)

    def _flow(self, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        """Changes of the order in which statements run."""
        match node:
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                if not isinstance(test, (ast.Compare, ast.Constant)):  # those have mutants of their own
                    yield ("condition", *self._span(test), f"(not ({self._source(test)}))")
            case ast.comprehension(ifs=tests):
                for test in tests:
                    yield ("condition", *self._span(test), "True")
            case ast.Return(value=value) if value and not isinstance(value, ast.Constant):
                yield ("return", *self._span(value), "None")
            case ast.Break():
                yield ("jump", *self._span(node), "continue")
            case ast.Continue():
                yield ("jump", *self._span(node), "break")
            case ast.Raise() | ast.Delete() | ast.AugAssign():
                yield ("statement", *self._span(node), "pass")
            case ast.Expr(value=value) if not isinstance(value, (ast.Constant, ast.Yield, ast.YieldFrom)):
                yield ("statement", *self._span(node), "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
                yield ("statement", *self._span(node), "pass")
            case ast.ExceptHandler(type=kind) if kind is not None and not isinstance(kind, ast.Tuple):
                yield ("handler", *self._span(kind), "()")
            case _:
                pass

    def _operator(
        self, kind: str, one: ast.expr, other: ast.expr, pattern: str, replacement: str
    ) -> Iterator[tuple[str, int, int, str]]:
        """Replace the operator between two expressions."""
        start = self._span(one)[1]
        between = self._text[start : self._span(other)[0]]
        # Not in a comment.
        blank = re.sub(r"#[^\n]*", lambda comment: " " * len(comment[0]), between)
        found = re.search(rf"(?<!\w){pattern}(?!\w)", blank)
        if found:
            yield kind, start + found.start(), start + found.end(), replacement

    def _constant(self, node: ast.Constant, value: object) -> Iterator[tuple[str, int, int, str]]:
        if isinstance(value, bool):
            yield ("constant", *self._span(node), str(not value))
        elif isinstance(value, (int, float)):
            # A test cannot detect a slightly longer time, but it can detect 0.
            small = value == 0 or (isinstance(value, int) and value < _SMALL)
            yield ("constant", *self._span(node), str(value + 1) if small else "0")
        elif isinstance(value, (str, bytes)) and value and not _for_people(value):
            yield ("constant", *self._span(node), "b''" if isinstance(value, bytes) else "''")

    def _elements(self, elements: list[ast.expr]) -> Iterator[tuple[str, int, int, str]]:
        """A set, or a choice, without one of its elements."""
        if len(elements) > 1 and all(isinstance(each, (ast.Constant, ast.Name, ast.Attribute)) for each in elements):
            for element in elements:
                yield from self._without("element", *self._span(element))

    def _without(self, kind: str, start: int, end: int) -> Iterator[tuple[str, int, int, str]]:
        """Remove an item of a list, with its comma."""
        comma = re.compile(r"\s*,[ \t]*").match(self._text, end)
        if comma:
            yield kind, start, comma.end(), ""
        else:
            before = re.search(r",\s*\Z", self._text[:start])
            yield kind, before.start() if before else start, end, ""


_NAMED = (ast.FunctionDef, ast.ClassDef)


def _is_not_run(node: ast.AST) -> bool:
    """Whether it is there for mypy only, or for people."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
        return node.test.id in _NOT_RUN
    if isinstance(node, ast.FunctionDef):
        return any(isinstance(each, ast.Name) and each.id in _NOT_RUN for each in node.decorator_list)
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id in _NOT_RUN or ast.unparse(node.value).startswith("TypeVar(")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _for_people(value: str | bytes) -> bool:
    """Whether it is a text of several words: a message, of which a test asserts what matters. SQL is not one."""
    words = value.decode("latin-1") if isinstance(value, bytes) else value
    return " " in words.strip() and not re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|SET|LISTEN)\b", words)
