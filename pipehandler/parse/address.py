"""A lenient parser for address lists (RFC 5322 3.4), in time linear in their length.

It reads all that RFC 5322 allows, including groups, comments and obsolete forms. It also accepts names with unquoted
specials, mailboxes with no domain, with no angle brackets or too many, and lists separated by semicolons.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipehandler.mail.parsed import Address

from . import addr_spec
from .charset import one_line, storable
from .encoded_word import decode_words

# An encoded-word is one token: RFC 2047 5 (3) forbids specials such as "," and "(" in it, but senders put them there.
_WORD = r"=\?[^?\s]{1,60}\?(?:[bBqQ]\?[^?\s]*|[qQ]\?[^?<>\"]*)\?="
_UNQUOTED = (
    rf"(?P<word>{_WORD})|(?P<angle><[^<>]*>)|(?P<comment>\()|(?P<mark>[,;:])|(?P<space>\s+)"
    r"|(?P<text>(?:[^\s\",;:<>()\[]|\[[^\[\]]*\])+)|(?P<other>.)"
)
_TOKEN = re.compile(r'(?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")|' + _UNQUOTED, re.DOTALL)
_TOKEN_WITHOUT_QUOTES = re.compile(_UNQUOTED, re.DOTALL)  # after an unclosed quote, which costs a scan to the end
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)', re.DOTALL)
_COMMENT_MARK = re.compile(r"\\.|[()]", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_IN_SQUARE_BRACKETS = re.compile(r"\[([^\s\[\]]+@[^\s\[\]]+)\]")
_EMPTY_GROUP = re.compile(r"[^@:;]*:\s*;?")  # <Undisclosed-Recipient:;>
_AT = re.compile(r"(\S+) at (\S+\.\S+)")  # archives of mailing lists hide addresses like this
_END_OF_MEMBER = re.compile(r"[<,;]")
_ONE_ENCODED_WORD = re.compile(_WORD)
_ENCODED_WORDS = re.compile(rf"{_WORD}(?: ?{_WORD})*")
_NOT_IN_LOCAL_PART = re.compile(r"[\s\"(),:;<>@\[\\\]]")  # RFC 5322 3.4.1, dot-atom


@dataclass(slots=True)
class _Member:
    """The tokens between two commas."""

    words: list[str] = field(default_factory=list)  # as written, each with its leading space
    angles: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    before: int = 0  # words before the angle bracket

    def phrase(self) -> str:
        return "".join(self.words).strip()


class Parsed(NamedTuple):
    """The mailboxes of a list, its deviations from RFC 5322, its broken encoded-words, and whether it was read in full.

    Deviations and broken encoded-words are short English phrases.
    """

    addresses: list[Address]
    wrong: list[str]
    broken_words: list[str]
    complete: bool


def parse(body: str, limit: int, hints: Sequence[str] = (), single: bool = False) -> Parsed:
    """Parse an unfolded field body, up to `limit` mailboxes. Never raises.

    `hints` are charsets for encoded-words whose own charset is missing or wrong. `single`: the field usually has one
    mailbox, so a comma probably belongs to its name.
    """
    return _List(body, limit, hints, single).parse()


def parse_encoded(body: str, limit: int, hints: Sequence[str] = (), single: bool = False) -> Parsed | None:
    """Parse a field body whose mailboxes are inside encoded-words, against RFC 2047 5 (3); None if there are none."""
    decoded = decode_words(body, hints)[0]
    found = parse(decoded.strip('"') if _is_quoted(decoded) else decoded, limit, hints, single)
    if not any("@" in each.address for each in found.addresses):
        return None
    found.wrong.append("encoded as a whole")
    return found


class _List:
    def __init__(self, body: str, limit: int, hints: Sequence[str], single: bool) -> None:
        self.body, self.limit, self.hints, self.single = body, limit, hints, single
        self.found: list[Address] = []
        self.wrong: list[str] = []
        self.broken_words: list[str] = []
        self.group = ""
        self.in_group = False
        self.full = False  # something exceeded the limit
        self.loose: list[str] = []  # words before a comma that may begin an unquoted name

    def parse(self) -> Parsed:
        body, position, space, member = self.body, 0, "", _Member()
        last_semicolon, pattern = body.rfind(";"), _TOKEN
        while position < len(body) and len(self.found) + len(self.loose) < self.limit:
            token = pattern.match(body, position)
            if token is None:
                break  # never: `other` matches anything
            position = token.end()
            text, kind = token[0], token.lastgroup
            if kind == "space":
                space = " "
                continue
            if kind == "comment":
                comment, position = self._comment(position)
                member.comments.append(comment)
                space = " "
                continue
            if kind == "angle":
                if member.angles and not member.angles[0].strip():  # Name <><a@b>
                    self.wrong.append("empty angle brackets")
                    member.angles.clear()
                elif member.angles and "@" not in member.angles[0] and "@" in text:  # Name <Shop> <a@b>
                    self.wrong.append("angle brackets in a name")
                    member.words.insert(member.before, f" <{member.angles.pop()}>")
                elif member.angles:  # a comma was forgotten
                    self.wrong.append("several angle brackets")
                    after = member.words[member.before :]
                    del member.words[member.before :]
                    self._end_member(member)
                    member = _Member(after)
                member.angles.append(text[1:-1])
                member.before = len(member.words)
            elif kind == "mark" and text == ":" and not member.angles and token.start() < last_semicolon:
                self._end_member(_Member())
                self.group, self.in_group, member = self._name(member.phrase()), True, _Member()
            elif text == ";" and self.single and not self.in_group and not self._has_address(member):
                member.words.append(space + text)  # Smith &amp; Sons <a@b>
                self.wrong.append("name with a semicolon")
            elif kind == "mark" and text != ":":
                self._end_member(member)
                member = _Member()
                if text == ";":
                    self._end_member(member, last=True)
                    if not self.in_group:
                        self.wrong.append("semicolon outside of a group")
                    self.group, self.in_group = "", False
            elif text == "<":
                if not body.startswith("<", position):  # else a duplicate bracket
                    self.wrong.append("angle bracket without end")
                    end = _END_OF_MEMBER.search(body, position)
                    stop = end.start() if end else len(body)
                    if end is None or end[0] != "<":  # else the innermost bracket has the address
                        member.angles.append(body[position:stop])
                        member.before = len(member.words)
                    position = stop
            elif text == ">":
                self.wrong.append("angle bracket without begin")
            else:
                if kind == "other" and text == '"' and pattern is _TOKEN:
                    pattern = _TOKEN_WITHOUT_QUOTES
                    self.wrong.append("quote without end")
                member.words.append(space + text)
            space = ""
        self._end_member(member, last=True)
        return Parsed(self.found, self.wrong, self.broken_words, complete=position >= len(body) and not self.full)

    def _has_address(self, member: _Member) -> bool:
        phrase = member.phrase()
        return bool(self.found or member.angles) or (
            "@" in phrase and not _is_quoted(phrase) and not self._encoded(phrase)
        )

    def _comment(self, position: int) -> tuple[str, int]:
        """Return the text of the comment (RFC 5322 3.2.2) that was opened before `position`, and its end."""
        depth, start = 1, position
        for mark in _COMMENT_MARK.finditer(self.body, position):
            depth += {"(": 1, ")": -1}.get(mark[0], 0)
            if not depth:
                return _QUOTED_PAIR.sub(r"\1", self.body[start : mark.start()]), mark.end()
        self.wrong.append("comment without end")
        return self.body[start:], len(self.body)

    def _name(self, text: str) -> str:
        """Return a display name without quotes, its encoded-words decoded."""
        if '"' in text:
            text = _QUOTED.sub(lambda quoted: _QUOTED_PAIR.sub(r"\1", quoted[1]), text)
        name, broken = decode_words(text, self.hints)
        self.broken_words += broken
        return storable(one_line(" ".join(name.split())))

    def _end_member(self, member: _Member, last: bool = False) -> None:
        phrase = member.phrase()
        encoded = self._encoded(phrase)
        if member.angles and _EMPTY_GROUP.fullmatch(member.angles[0]):
            self.wrong.append("group in angle brackets")
            return
        if member.angles and not member.angles[0].strip() and "@" in phrase[1:-1] and " " not in phrase:  # a@b <>
            self.wrong.append("empty angle brackets")
            member.angles.clear()
        bracket = None if member.angles else _IN_SQUARE_BRACKETS.search(phrase)
        if bracket and "@" not in phrase.replace(bracket[0], "", 1):  # Name [a@b]
            self.wrong.append("square brackets")
            phrase = phrase.replace(bracket[0], "", 1).strip()
            member = _Member([phrase], [bracket[1]], member.comments, before=1)
        if not member.angles and ("@" not in phrase or _is_quoted(phrase) or encoded):
            inside = addr_spec.in_comments(member.comments)
            if inside and (self.loose or not phrase or " " in phrase or "<" in "".join(member.comments)):
                member.angles, member.comments = [inside], []  # Name,(<a@b>)
            elif phrase:
                self.loose.append(phrase)
                if not last and (self.single or "@" not in encoded):
                    return
        elif member.angles and (behind := "".join(member.words[member.before :])).strip():
            words = behind.split()
            if all("@" in word[1:-1] and '"' not in word for word in words):  # <a@b> c@d
                self.wrong.append("comma is missing")
                self._end_member(_Member(member.words[: member.before], member.angles, member.comments, member.before))
                for word in words:
                    self._add("", word)
                return
        if member.angles and self.loose and (self.single or len(self.loose) == 1):  # Doe, John <a@b>
            phrase = ", ".join([*self.loose, phrase]).removesuffix(", ")
            self.loose = []
            self.wrong.append("name with a comma")
        for word in self.loose:
            self._without_domain(word, member.comments)
        self.loose = []
        if member.angles:
            self._add(self._name(phrase or " ".join(member.comments)), addr_spec.in_angle_brackets(member.angles[0]))
        elif "@" in phrase and not _is_quoted(phrase) and not encoded:
            self._bare(phrase, member.comments)

    def _bare(self, phrase: str, comments: list[str]) -> None:
        """Add an addr-spec without angle brackets, which may have words around it."""
        joined = addr_spec.without_blanks(phrase)
        phrase = phrase if " " in joined else joined  # RFC 5322 4.4
        addresses = phrase.split()
        if len(addresses) > 1 and all("@" in word[1:-1] and '"' not in word and word[0] != "[" for word in addresses):
            self.wrong.append("comma is missing")
            for word in addresses:
                self._add("", word)
            return
        if not self.single and '"' not in phrase and len(parts := self._by_address(addresses)) > 1:
            self.wrong.append("comma is missing")
            for name, address in parts:
                self._add(self._name(name), address)
            return
        before, at, after = phrase.rpartition("@")
        words = before.rstrip().rsplit(None, 1) if not before.rstrip().endswith('"') else [before]
        domain = after.lstrip().split(None, 1)
        address = (words[-1].strip() if words else "") + at + (domain[0] if domain else "")
        name = " ".join(words[:-1] + domain[1:])
        if name or not words or not domain:
            self.wrong.append("no angle brackets")
        self._add(self._name(name or " ".join(comments)), address)

    def _by_address(self, words: list[str]) -> list[tuple[str, str]]:
        """Divide words after each one that is an address: each address with the words before it as its name."""
        parts: list[tuple[str, str]] = []
        name: list[str] = []
        for word in words:
            if "@" in word[1:-1]:
                parts.append((" ".join(name), word))
                name = []
            else:
                name.append(word)
        return parts if not name else []

    def _without_domain(self, phrase: str, comments: list[str]) -> None:
        """Add a phrase without @: a single word is a local part; several words, or a quoted one, are a name."""
        if phrase.endswith(":"):
            self.wrong.append("group without end")
            return
        if _is_quoted(phrase) and "@" in phrase:  # a name by RFC 5322 3.4, but with no address beside it
            self.wrong.append("quoted address")
            self._bare(phrase.strip('"'), comments)
            return
        if "@" in (encoded := self._encoded(phrase)):  # a name by RFC 2047 5 (3), but with no address beside it
            self.wrong.append("encoded as a whole")
            for name, address, _ in parse(encoded, self.limit - len(self.found), self.hints, self.single).addresses:
                self._add(name, address)
            return
        self.wrong.append("no @")
        if hidden := _AT.fullmatch(phrase):
            self._add(self._name(" ".join(comments)), f"{hidden[1]}@{hidden[2]}")
        elif '"' in phrase or " " in phrase or "=?" in phrase:
            self._add(self._name(phrase), "")
        else:
            self._add(self._name(" ".join(comments)), phrase)

    def _add(self, name: str, address: str) -> None:
        if (name or address) and len(self.found) >= self.limit:
            self.full = True
        elif name or address:
            if "=?" in address:
                name, address = self._decoded_local_part(name, address)
            plain = addr_spec.plain(address)
            if plain != address:
                self.wrong.append("more than an address")
            self.found.append(Address(name, storable(plain), self.group))

    def _encoded(self, phrase: str) -> str:
        """Return the decoded text of a phrase that consists of encoded-words, "" for any other."""
        return decode_words(phrase, self.hints)[0] if _ENCODED_WORDS.fullmatch(phrase) else ""

    def _decoded_local_part(self, name: str, address: str) -> tuple[str, str]:
        """Decode a local part that is one encoded-word, against RFC 2047 5 (3); it may contain the name as well.

        The domain is taken from encoded-words only where the whole address is in them; else it stays the end of the address.
        """
        if _ENCODED_WORDS.fullmatch(address) and "@" in (whole := decode_words(address, self.hints)[0]):
            self.wrong.append("encoded as a whole")
            before, _, address = whole.rpartition("<")
            return name or self._name(before.strip()), addr_spec.without_blanks(address.rstrip("> "))
        word, _, domain = address.rpartition("@")
        if not domain or not _ONE_ENCODED_WORD.fullmatch(word):
            return name, address
        self.wrong.append("encoded local part")
        before, _, local = decode_words(word, self.hints)[0].rpartition("<")
        if _NOT_IN_LOCAL_PART.search(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return name or self._name(before.strip()), f"{local}@{domain}"


def _is_quoted(phrase: str) -> bool:
    """Whether `phrase` is one quoted-string."""
    return len(phrase) > 1 and phrase[0] == phrase[-1] == '"' and phrase.count('"') == 2
