"""Patterns in which * stands for anything, and everything else for itself, as SQL has them for LIKE."""


def escaped(text: str) -> str:
    """`text` for LIKE, in which nothing is a wildcard."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def like(pattern: str) -> str:
    """`pattern` for LIKE."""
    return escaped(pattern).replace("*", "%")
