"""A search within an inbox, as a person types it, as pipehandler.inbox_page takes it.

Words have to occur, in whatever case, in the subject, the sender, the recipient, the text or the name of an attachment; "two
words" in this order. from: to: subject: text: file: look in one place. -word and -from:word must not occur. Further
has:attachment, before:2026-11-30, after:2026-11-01, larger:100k, smaller:2m. What is not understood is a word. The text of mail
with both parts includes the words of its HTML (sql/code/54_html_words.sql).
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from .like import words

_LONGEST = 500  # characters of a search
_TERMS = 20
_PLACES = ("from", "to", "subject", "text", "file")
_UNITS = {"": 1, "k": 1024, "m": 1024**2}

_TERM = re.compile(r'(?P<minus>-?)(?:(?P<operator>[A-Za-z]+):)?(?:"(?P<quoted>[^"]*)"?|(?P<word>[^\s"]+))')
_SIZE = re.compile(r"(\d{1,9})([km]?)b?", re.ASCII)


def search(text: str) -> dict[str, Any] | None:
    """The argument `wanted` of pipehandler.inbox_page; None if the text has nothing to look for."""
    terms: list[dict[str, Any]] = []
    limits: dict[str, Any] = {}
    for found in _TERM.finditer(text[:_LONGEST].replace("\0", " ")):
        operator, word = (found["operator"] or "").lower(), found["quoted"] or found["word"] or ""
        limit = {} if found["minus"] else _limit(operator, word.lower())
        if limit:
            limits |= limit
            continue
        place = operator if operator in _PLACES else "any"
        if operator and place == "any":
            word = f"{found['operator']}:{word}"
        if word:
            terms.append({"in": place, "pattern": words(word), "not": bool(found["minus"])})
    return {"terms": terms[:_TERMS], **limits} if terms or limits else None


def _limit(operator: str, word: str) -> dict[str, Any]:
    """What an operator limits beside words; empty if it is none."""
    if operator == "has" and word in ("attachment", "attachments"):
        return {"attachment": True}
    if operator in ("before", "after"):
        try:
            day = datetime.strptime(word, "%Y-%m-%d").replace(tzinfo=UTC)
            return {operator: (day if operator == "before" else day + timedelta(days=1)).isoformat()}
        except (ValueError, OverflowError):
            return {}
    if operator in ("larger", "smaller") and (size := _SIZE.fullmatch(word)):
        return {operator: int(size[1]) * _UNITS[size[2]]}
    return {}
