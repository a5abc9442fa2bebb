"""Patterns in which * matches anything and every other character matches itself, as SQL patterns for LIKE."""


def escaped(text: str) -> str:
    """A LIKE pattern that matches exactly `text`."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def like(pattern: str) -> str:
    """A LIKE pattern that matches what `pattern` does."""
    return escaped(pattern).replace("*", "%")
