"""Patterns in which * matches anything and every other character matches itself, as SQL patterns for LIKE and for ~*."""

# Cases that Python does not name: a sigma at the end of a word, and the capital beside SS.
_FURTHER = {"\u03c3": "\u03c2", "\u00df": "\u1e9e"}


def escaped(text: str) -> str:
    """A LIKE pattern that matches exactly `text`."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def like(pattern: str) -> str:
    """A LIKE pattern that matches what `pattern` does."""
    return escaped(pattern).replace("*", "%")


def words(text: str) -> str:
    """A pattern for ~* with COLLATE "C" that matches `text` anywhere in a value, regardless of the case of any letter.

    ILIKE would do so only for the letters that the collation of the database knows: in "C", those of ASCII. Other letters
    are therefore written in each of their cases. What that is comes from Python's Unicode, so it is the same on any server.
    """
    return "".join(map(_in_any_case, text))


def whole(pattern: str) -> str:
    """A pattern as `words` makes it that matches the whole value as `pattern` does."""
    return f"^{'.*'.join(map(words, pattern.split('*')))}$"


def _in_any_case(character: str) -> str:
    if character.isascii():
        return character if character.isalnum() else f"\\{character}"
    upper, lower = character.upper(), character.lower()
    cases = {character, upper, lower, upper.lower(), lower.upper(), character.title()}
    cases |= {_FURTHER.get(case, case) for case in cases}
    single = sorted(case for case in cases if len(case) == 1)
    return f"[{''.join(single)}]" if len(single) > 1 else character
