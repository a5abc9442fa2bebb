"""Host names as people read them: which ones a text names, their two forms, and those that imitate others."""

import re
import unicodedata
from importlib.resources import files
from urllib.parse import unquote

import idna


def forms(host: str) -> tuple[str, str]:
    """Return a host in Unicode, and as browsers ask for it (UTS 46, non-transitional). Never raises."""
    host = unquote(host).strip().rstrip(".")
    try:
        ascii_host = idna.encode(host, uts46=True, transitional=False).decode("ascii") if host else ""
    except (idna.IDNAError, UnicodeError):
        ascii_host = _invisible_removed(unicodedata.normalize("NFKC", host)).lower()
    try:
        return (idna.decode(ascii_host) if ascii_host else ""), ascii_host
    except (idna.IDNAError, UnicodeError):
        return ascii_host, ascii_host


def owns(name: str, host: str) -> bool:
    """Whether the owner of the host `name` decides what `host` is: they are the same, or `host` lies below it."""
    name = name.removeprefix("www.")
    return host.removeprefix("www.") == name or host.endswith(f".{name}")


# A host behind its scheme or "www.", or as a word of its own. Labels are letters and digits of any script.
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_NAMED = re.compile(
    rf"(?<![\w.-])(?P<sure>https?:[\s/\\]+|www\.)?(?P<host>(?:{_LABEL}\.){{1,10}}(?P<end>{_LABEL}))(?![\w-])",
    re.IGNORECASE,
)
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
# National and generic ends of names. A word before one of them names a host; one before others (Node.js) does not.
_ENDS = frozenset(files(__package__).joinpath("name_ends.txt").read_text("utf-8").split())


def named_hosts(text: str) -> set[str]:
    """Return the hosts that a reader finds named in `text`, each in ASCII."""
    # NFKC turns what looks like a full stop into one; the ideographic full stop separates labels too (RFC 3490, 3.1).
    text = _invisible_removed(unicodedata.normalize("NFKC", text)).replace("。", ".")
    return {
        forms(found["host"])[1]
        for found in _NAMED.finditer(text)
        if found["sure"] or _ends_a_name(found["end"].casefold())
    }


def _ends_a_name(label: str) -> bool:
    return label in _ENDS or label.startswith("xn--")


def _invisible_removed(text: str) -> str:
    return _INVISIBLE.sub("", text)


# Scripts that one word may mix (UTS 39, "highly restrictive").
_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
)
# Letters of other scripts that look like Latin ones: a label of nothing else imitates a Latin word.
_LIKE_LATIN = frozenset("аасԁеһіјӏоорԛѕуԝхъьүҽгпνορτυіκωχαγɡօսոյհց")


def has_mixed_scripts(host: str) -> bool:
    """Whether a host, in Unicode, has a label of scripts that no language mixes, or one that imitates Latin letters."""
    labels = host.split(".")
    latin_end = labels[-1].isascii() and not labels[-1].startswith("xn--")
    return any(_mixes(label) or (latin_end and not label.isascii() and _imitates(label)) for label in labels)


def _mixes(label: str) -> bool:
    scripts = {unicodedata.name(letter, "UNKNOWN").split()[0] for letter in label if letter.isalpha()}
    return len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER)


def _imitates(label: str) -> bool:
    return all(letter in _LIKE_LATIN for letter in label if letter.isalpha())
