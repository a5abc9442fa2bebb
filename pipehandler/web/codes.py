"""The one-time code or the confirmation link of a message, found by rules and offered to copy.

A wrong code is worse than none, so a candidate needs words about a code beside it, and is refused beside words about an
order, an invoice or a telephone. The words of the twenty languages of the page are in code_words.txt.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import NamedTuple

from .links import Link


@dataclass(frozen=True, slots=True)
class OneTimeCode:
    """A code to copy, as the message writes it but without the spaces and hyphens that only group digits."""

    code: str


@dataclass(frozen=True, slots=True)
class ConfirmationLink:
    """The link that confirms an address, finishes a registration, resets a password or signs in."""

    link: Link


def find(subject: str, text: str, links: Sequence[Link]) -> OneTimeCode | ConfirmationLink | None:
    """Return what the reader of a message most likely wants to take from it; None if that is not clear.

    text: the text of the message, each block on its own line. links: its links; one that deceives is never returned.
    Only the first 20,000 characters are read.
    """
    code = _code(subject[:1000], text[:_READ])
    if code:
        return OneTimeCode(code)
    link = _link(subject[:1000], text[:_READ], links)
    return ConfirmationLink(link) if link else None


_READ = 20_000
_NEAR = 80  # characters between a code and the word for it
_LINES = 3  # lines between them
_ENOUGH = 40  # points
_MOST = 25  # candidates that are looked at, in the subject, the text and the links

# Not within a word, a number, a date, a price or a path. Letters of other scripts may follow immediately (123456입니다).
_BEFORE = r"(?<![A-Za-z0-9_#/@+=&€$£¥₹])(?<![0-9][.,:/ \-])(?<![A-Za-z]-)(?<![€$£¥₹] )"
_AFTER = r"(?![A-Za-z0-9_/@=&%€$£¥₹年月日円元원])(?![.,:/\-]?[0-9])(?! [0-9]| ?(?:%|€|\$|EUR|USD|GBP|PLN|TL|руб|грн|원|円|元|年|kr))"
_CANDIDATE = re.compile(
    rf"{_BEFORE}(?P<code>[0-9]{{4,9}}|[0-9]{{3,4}}[ \-][0-9]{{3,4}}|[0-9]{{2}}(?:[ \-][0-9]{{2}}){{2,3}}|[0-9](?: [0-9]){{3,8}}"
    r"|[A-Z]{1,3}-[0-9]{4,8}|(?=[A-Z-]*[0-9])(?=[0-9-]*[A-Z])[A-Z0-9]{4,10}(?:-[A-Z0-9]{3,6}){0,2}"
    rf"|[A-Z]{{4,5}}-[A-Z]{{4,5}}|(?=[A-Za-z]*[0-9])(?=[a-z0-9]*[A-Za-z])[A-Za-z0-9]{{6,8}}){_AFTER}"
)
_URL = re.compile(r"<?(?:https?://|www\.|mailto:)\S+|[^\s@]{1,64}@[^\s@]{1,255}", re.IGNORECASE)
_ALONE = re.compile(r"[\W_]*")
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_WORD_AND_NUMBER = re.compile(r"[A-Za-z]{4,}[0-9]{1,3}")
_SENTENCE = re.compile(r"[.!?。！？]\s|[。！？]")


class _Candidate(NamedTuple):
    code: str
    points: float


def _code(subject: str, text: str) -> str | None:
    lines = [line for line in map(_normalised, text.splitlines()) if line.strip()]
    title = _normalised(subject)
    best: dict[str, float] = {}
    for code, points in [*_in_subject(title), *_in_lines(lines, bool(_code_words(title)))]:
        # The same code in the subject and in the text is one; so is a code that is written twice.
        best[code] = max(points, best.get(code, 0)) + (5 if code in best else 0)
    ranked = sorted(best.items(), key=lambda item: -item[1])
    if not ranked or ranked[0][1] < _ENOUGH:
        return None
    if len(ranked) > 1 and ranked[1][1] > ranked[0][1] - 8:
        return None  # two that are as likely
    return ranked[0][0]


class _Place(NamedTuple):
    """A candidate with the text beside it; start and end are its place in that text."""

    text: str
    start: int
    end: int
    code: str
    alone: bool  # there is nothing else in its line


def _places(line: str) -> Iterator[_Place]:
    for found in _CANDIDATE.finditer(line):
        first = max(0, found.start() - 2 * _NEAR)
        alone = len(line) < _NEAR and _ALONE.fullmatch(line[: found.start()] + line[found.end() :]) is not None
        text = line[first : found.end() + 2 * _NEAR]
        yield _Place(text, found.start() - first, found.end() - first, found["code"], alone)


def _in_subject(title: str) -> Iterator[_Candidate]:
    for place in islice(_places(title), _MOST):
        points = _beside(place)
        if points > 0 and not _is_refused(place):
            yield _Candidate(_plain(place.code), points + 30)


def _in_lines(lines: list[str], announced: bool) -> Iterator[_Candidate]:
    """Return the candidates of the text. `announced`: the subject speaks of a code."""
    places = ((number, place) for number, line in enumerate(lines) for place in _places(line))
    for number, place in islice(places, _MOST):
        if _is_refused(place) or not (place.alone or _is_plain(place.code)):
            continue
        if _has(place.text, "price") or (number and _has(lines[number - 1][-_NEAR:], "price")):
            continue
        points = _beside(place)
        if place.alone:
            points = max(points, _around(lines, number), 45 if announced else 0) + 10
        elif announced and points > 0:
            points += 10
        if _YEAR.fullmatch(place.code) and not place.alone:
            points -= 30
        yield _Candidate(_plain(place.code), points)


def _beside(place: _Place) -> float:
    """Return the points for a word about a code in the same line: more if it is near, and stands before the code."""
    points = 0.0
    for start, end in _code_words(place.text):
        if end <= place.start and place.start - end <= _NEAR:
            between = place.text[end : place.start]
            points = max(points, 80 - len(between) / 3 - 25 * len(_SENTENCE.findall(between)))
        elif start >= place.end and start - place.end <= _NEAR:
            between = place.text[place.end : start]
            points = max(points, 70 - len(between) / 3 - 45 * len(_SENTENCE.findall(between)))
    return points


def _around(lines: list[str], number: int) -> float:
    """Return the points of a line that is nothing but a candidate, for the lines around it that speak of a code."""
    for distance in range(1, _LINES + 1):
        if number >= distance and _code_words(lines[number - distance][-2 * _NEAR :]):
            return 75 - 10 * distance
    return 45 if number + 1 < len(lines) and _code_words(lines[number + 1][: 2 * _NEAR]) else 0


def _code_words(line: str) -> list[tuple[int, int]]:
    """Return where the line has words about a code, other than those about a postal code and the like."""
    without = _words("not").sub(lambda found: "\0" * len(found[0]), line.casefold())
    return [found.span() for found in _words("code").finditer(without)] if len(without) == len(line) else []


def _is_refused(place: _Place) -> bool:
    """Whether the words directly before a candidate make it another number."""
    before = place.text[max(0, place.start - 40) : place.start].casefold()
    code = max((word.end() for word in _words("code").finditer(before)), default=-1)
    other = max((word.end() for name in ("number", "not") for word in _words(name).finditer(before)), default=-1)
    return other >= max(code, 0) and len(before) - other <= 25


def _is_plain(code: str) -> bool:
    """Whether a code may stand within a sentence: not a word with a number, such as SAVE20, nor mere letters."""
    return not _WORD_AND_NUMBER.fullmatch(code) and any(letter.isdigit() for letter in code) and code.upper() == code


def _plain(code: str) -> str:
    """Return a code without what only groups its digits; a hyphen between letters belongs to it."""
    return re.sub(r"[ \-]", "", code) if not re.search("[A-Za-z]", code) else code


def _normalised(text: str) -> str:
    """Return text in NFKC, with digits of any script as 0 to 9, and without URLs and addresses."""
    text = unicodedata.normalize("NFKC", text).translate(_CLEAR)
    text = "".join(
        str(unicodedata.digit(letter)) if letter.isdigit() and not letter.isascii() else letter for letter in text
    )
    # Casefolding must not change the length: "İ" and "ß" would.
    text = "".join(letter if len(letter.casefold()) == 1 else letter.lower()[0] for letter in text)
    return _URL.sub(lambda url: " " * len(url[0]), text)


_CLEAR = dict.fromkeys((173, 8203, 8204, 8205, 8206, 8207, 8288, 65279)) | {
    0xA0: " ",
    0x2010: "-",
    0x2013: "-",
}


_PATH = re.compile(
    r"confirm|verif|activat|validat|reset|magic|one-?time|opt-?in|double|signup|register|token|invit",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[A-Za-z0-9_\-.~%]{16,}|[0-9a-f]{8}-[0-9a-f]{4}-")


def _link(subject: str, text: str, links: Sequence[Link]) -> Link | None:
    announced = _has(subject, "confirm") or _has(subject, "enter")
    best, most = None, 3.0
    promising = ((link, points) for link in links if (points := _of_path(link)) > 0)
    for link, points in islice(promising, _MOST):
        written = link.text == link.url
        shown = _before(link.url, text) if written else link.text[:_NEAR]
        if _has(shown, "other"):
            continue
        points += 2.5 if _has(shown, "confirm") else 1.0 if _has(shown, "enter") else 0.0
        if points + announced > most:
            best, most = link, points + announced
    return best


def _of_path(link: Link) -> float:
    """Return the points for the path of a link; none for one that deceives."""
    if link.url[:4].lower() != "http" or link.mismatch or link.mixed_scripts:
        return 0
    path = link.url.partition("//")[2].partition("/")[2][:2000]
    return 2.0 * bool(_PATH.search(path)) + 1.0 * bool(_TOKEN.search(path))


def _before(url: str, text: str) -> str:
    """Return the line before a URL that is written in the text, or ""."""
    at = text.find(url)
    return (
        " ".join([line for line in text[max(0, at - 2 * _NEAR) : at].splitlines() if line.strip()][-2:])
        if at >= 0
        else ""
    )


def _has(text: str, section: str) -> bool:
    return _words(section).search(unicodedata.normalize("NFKC", text).casefold()) is not None


@cache
def _words(section: str) -> re.Pattern[str]:
    """Return an expression for the words of a section of code_words.txt.

    A script with spaces has whole words, others have parts of them. Alternatives begin with their letters, which the
    engine compares first: most places of a text are passed quickly.
    """
    whole: list[str] = []
    endings: list[str] = []
    parts: list[str] = []
    for word in _sections()[section]:
        expression = re.escape(word.strip("*")).replace(r"\ ", r"[\s\-]+") + (r"\w*" if word.endswith("*") else "")
        bounded = unicodedata.name(word.strip("*")[0]).startswith(("LATIN", "CYRILLIC", "GREEK"))
        (endings if word.startswith("*") else whole if bounded else parts).append(expression)
    groups = ((r"(?<!\w)(?:", whole, r")(?!\w)"), ("(?:", endings, r")(?!\w)"), ("(?:", parts, ")"))
    return re.compile(
        "|".join(before + "|".join(sorted(of, key=len, reverse=True)) + after for before, of, after in groups if of)
    )


@cache
def _sections() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for line in files(__package__).joinpath("code_words.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            words = sections.setdefault(line[1:].partition("]")[0], [])
        elif line and not line.startswith("#"):
            words.append(unicodedata.normalize("NFKC", line).casefold())
    return sections
