"""A mutant: a file with one change."""

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Mutant:
    """One change of the file `path` (from the repository): `text`, with `replacement` from `start` to `end`.

    function: the qualified name of where it is, "" for none. number: from 2 on if the same line in the same function
    has the same change again.
    """

    path: str
    function: str
    kind: str
    text: str
    start: int
    end: int
    replacement: str
    number: int = 1

    @property
    def mutated(self) -> str:
        """The text of the changed file."""
        return self.text[: self.start] + self.replacement + self.text[self.end :]

    @property
    def line(self) -> int:
        """The first line that differs, from 1."""
        return self.text.count("\n", 0, self.start) + 1

    @property
    def last_line(self) -> int:
        """The last line that differs."""
        return self.text.count("\n", 0, self.end) + 1

    @property
    def changed_lines(self) -> tuple[str, str]:
        """The lines that differ, before and after, each as one line."""
        start = self.text.rfind("\n", 0, self.start) + 1
        end = self.text.find("\n", self.end)
        end = len(self.text) if end < 0 else end
        before = self.text[start:end]
        after = self.text[start : self.start] + self.replacement + self.text[self.end : end]
        return _one_line(before), _one_line(after)

    @property
    def key(self) -> str:
        """The key of the mutant: stable as long as its line is the same, wherever that is in its function."""
        before, after = self.changed_lines
        return "\t".join([self.path, self.function or "-", before, after or "-", str(self.number)])

    @property
    def diff(self) -> str:
        """The change as a unified diff without its head."""
        lines = difflib.unified_diff(self.text.splitlines(), self.mutated.splitlines(), lineterm="", n=2)
        return "\n".join(list(lines)[2:])


def numbered(mutants: Iterable[Mutant]) -> list[Mutant]:
    """The same mutants, each with a unique key."""
    seen: Counter[str] = Counter()
    result = []
    for mutant in mutants:
        seen[mutant.key] += 1
        result.append(replace(mutant, number=seen[mutant.key]) if seen[mutant.key] > 1 else mutant)
    return result


def _one_line(text: str) -> str:
    return " ".join(text.split())
