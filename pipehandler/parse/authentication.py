"""Authentication results of our own mail hosts: SPF, DKIM, DMARC, ARC, and a spam verdict.

Any sender can include such fields, so they count only if one of our hosts wrote them: under a name (authserv-id,
RFC 8601 2.5) that the configuration trusts. The topmost field wins, because a border host writes above what it
received. That host must delete incoming fields that bear its own name (RFC 8601 5).
"""

import re
from collections.abc import Iterable, Sequence

_METHODS = frozenset({"spf", "dkim", "dmarc", "arc"})
_RESULTS = frozenset({"none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror"})
_OLD_RESULTS = {"hardfail": "fail", "error": "temperror", "unknown": "permerror"}  # RFC 5451, RFC 4408
_RESULT = re.compile(r"\s*([A-Za-z]+)(?:\s*/\s*\d+)?\s*=\s*([A-Za-z]+)")  # RFC 8601 2.2
_RECEIVER = re.compile(r"\breceiver=\"?([^\s;\"]+)", re.IGNORECASE)  # RFC 7208 9.1
_SCANNERS = {  # the field by which a spam filter names its host
    "x-spam-checker-version": re.compile(r"\bon\s+(\S+)\s*\Z"),
    "x-rspamd-server": re.compile(r"\A\s*(\S+)\s*\Z"),
    "x-virus-scanned": re.compile(r"\bat\s+(\S+)\s*\Z"),
}
_SCORE = re.compile(r"(?:score|hits)=(-?\d{1,5}(?:\.\d{1,5})?)|\[\s*(-?\d{1,5}(?:\.\d{1,5})?)\s*/", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(-?\d{1,5}(?:\.\d{1,5})?)\b")
_SIZE = 16_384  # characters read of one field


def read(fields: Iterable[tuple[str, str]], trusted_authserv_ids: Sequence[str]) -> dict[str, str]:
    """Return the results reported by trusted hosts.

    Keys: `spf`, `dkim`, `dmarc`, `arc` (words of RFC 8601 2.7), `spam` ("yes" or "no") and `spam_score` (a decimal
    number). A key is absent if no trusted host reported it.

    `fields` are (name, unfolded body) from the top. `trusted_authserv_ids` are host names in lower case; if it is
    empty, nothing is read. Of several dkim results in one field (one per signature) "pass" wins, else the first.
    """
    if not trusted_authserv_ids:
        return {}
    named = [(name.lower(), body[:_SIZE]) for name, body in fields]
    results: dict[str, str] = {}
    for name, body in named:
        if name == "authentication-results":
            authserv_id, found = _authentication_results(body)
            if authserv_id in trusted_authserv_ids:
                results = found | results
        elif name == "received-spf":
            receiver, word = _RECEIVER.search(body), body.split(None, 1)[:1]
            result = _result(word[0]) if word else None
            if receiver and result and receiver[1].lower().rstrip(".") in trusted_authserv_ids:
                results.setdefault("spf", result)
    if any(_scanned_by(name, body) in trusted_authserv_ids for name, body in named):
        results |= _spam(named)
    return results


def _result(word: str) -> str | None:
    word = word.lower()
    word = _OLD_RESULTS.get(word, word)
    return word if word in _RESULTS else None


def _authentication_results(body: str) -> tuple[str, dict[str, str]]:
    """Return the authserv-id and the results of one Authentication-Results field (RFC 8601 2.2)."""
    authserv_id, _, rest = _without_comments(body).partition(";")
    words = authserv_id.split()
    results: dict[str, str] = {}
    for statement in rest.split(";"):
        match = _RESULT.match(statement)
        method, result = (match[1].lower(), _result(match[2])) if match else ("", None)
        if method in _METHODS and result and (method not in results or (method == "dkim" and result == "pass")):
            results[method] = result
    return words[0].strip('"').lower() if words else "", results


def _without_comments(body: str) -> str:
    """Return `body` with a space for each comment (RFC 5322 3.2.2), which may be nested and contain semicolons."""
    pieces, depth, quoted = [], 0, False
    for piece in re.split(r'(\\.|[()"])', body):
        if piece == '"' and not depth:
            quoted = not quoted
        if piece == "(" and not quoted:
            pieces += [] if depth else [" "]
            depth += 1
        elif piece == ")" and not quoted:
            depth = max(0, depth - 1)
        elif not depth:
            pieces.append(piece)
    return "".join(pieces)


def _scanned_by(name: str, body: str) -> str | None:
    pattern = _SCANNERS.get(name)
    match = pattern.search(body) if pattern else None
    return match[1].lower().rstrip(".") if match else None


def _spam(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the verdict of SpamAssassin, amavis or Rspamd. The topmost field of each kind counts.

    Rspamd writes at the bottom, so that a "yes" of its fields counts wherever it stands: X-Spamd-Result has True for what
    it would refuse, and X-Spam has Yes for what it only marks.
    """
    verdict: dict[str, str] = {}
    marked = False
    for name, body in fields:
        word = body.strip().lower()
        if name in ("x-spam-status", "x-spam-flag", "x-spam") and word.startswith(("yes", "no", "true", "false")):
            is_spam = word.startswith(("yes", "true"))
            verdict.setdefault("spam", "yes" if is_spam else "no")
            marked = marked or (is_spam and name == "x-spam")
        score = None
        if name in ("x-spam-status", "x-spamd-result"):
            score = _SCORE.search(body)
        elif name in ("x-spam-score", "x-rspamd-score"):
            score = _NUMBER.match(body)
        if score:
            verdict.setdefault("spam_score", next(filter(None, score.groups())))
        if name == "x-spamd-result" and (flag := re.search(r":\s*(true|false)\b", word)):
            verdict.setdefault("spam", "no")
            marked = marked or flag[1] == "true"
    return verdict | {"spam": "yes"} if marked else verdict
