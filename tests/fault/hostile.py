"""Hostile messages: each kind is a function from a size in octets to a message of about that size.

Postfix lets most of this through: its own limits are 10 MB for a message, 100 KB for a field and a nesting of 100, and
the first two are often raised. Where a kind needs no size, such as a chain of 90 attached messages, the size goes into
its content. All are deterministic.
"""

import base64
import random
from collections.abc import Callable, Iterator
from encodings.aliases import aliases
from itertools import count, product

Kind = Callable[[int], bytes]

LONGEST_FIELD = 98_000
"""Octets of one field: nearly Postfix's header_size_limit."""

TRUSTED = "mx.example.com"
"""The authserv-id of the hostile authentication fields; the handler is configured to trust it."""

_HEAD = b"From: a@example.org\nTo: b@example.com\nMessage-ID: <hostile@example.org>\nMIME-Version: 1.0\n"
_MIXED = _HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n"

# Field floods: every field below, filled with one piece, after one of these beginnings and before its end.
_FIELDS = (
    b"From", b"Sender", b"Reply-To", b"To", b"Cc", b"Bcc", b"Subject", b"Date", b"Message-ID", b"In-Reply-To",
    b"References", b"List-Id", b"Content-Type", b"Content-Disposition", b"Content-Transfer-Encoding", b"Content-ID",
    b"Received", b"X-Anything",
)  # fmt: skip
_AROUND = (
    (b"", b""), (b"(", b")"), (b"a <", b">"), (b"a <a", b"b>"), (b"<@", b"x>"), (b'"', b'"'), (b'"', b""), (b"[", b"]"),
    (b"=?utf-8?q?", b"?="), (b"=?utf-8?b?", b""), (b"a/b; a=", b""), (b'text/plain; charset="', b'"'), (b"g:", b";"),
    (b"attachment; filename*0*=utf-8''", b""), (b"Tue, 14 Mar 2023 09:26:53 ", b""),
)  # fmt: skip
_PIECES = (
    b" ", b"\t", b"\n ", b" \n\t", b"a", b"9", b".", b"@", b",", b";", b":", b"=", b"?", b"(", b")", b"()", b"(a", b"<", b">",
    b"<>", b'"', b'" ', b"\\", b"\\(", b"[", b"[a", b"a@b,", b"a@b (c) ", b"<a@b>", b"a:;", b"=?", b"?=", b"=?utf-8?q?a",
    b"=?utf-8?q?=c3?= ", b"=?a?b?", b"=?\xff?q?", b"%", b"%c3", b"*", b"*0*=", b";a*0=", b"'", b"+", b"-0100 ", b"\0", b"\xff",
    b"\xc3\xa9", b"\xed\xa0\x80", b"\x1b$B", b"\x01", b"\r", b"/",
)  # fmt: skip

# What authentication.py reads, in the fields of a trusted host.
_VERDICTS = (
    b"Authentication-Results: %s; " % TRUSTED.encode(), b"Received-SPF: pass receiver=%s " % TRUSTED.encode(),
    b"X-Spam-Checker-Version: a on %s\nX-Spam-Status: " % TRUSTED.encode(), b"X-Spam-Checker-Version: on ",
    b"X-Rspamd-Server: %s\nX-Spamd-Result: " % TRUSTED.encode(), b"X-Virus-Scanned: at ",
)  # fmt: skip
_VERDICT_PIECES = (
    b"spf=pass; ", b"dkim=", b";", b"(", b")", b'"', b"\\", b"=", b" ", b"a", b"on ", b"at ", b"receiver=", b"receiver", b"9",
    b"score=", b"[ ", b"/", b"spf/1 = ", b"(a)", b"\0",
)  # fmt: skip

# Python codecs, most of them charsets, and names that are not codecs.
_CHARSETS = (
    *sorted({name.encode() for name in aliases.values()}), b"punycode", b"idna", b"unicode_escape", b"raw_unicode_escape",
    b"undefined", b"oem", b"mbcs", b"utf-8-sig", b"cp65001", b"x-mac-japanese", b"palmos", b"charmap", b"string_escape",
    b"unicode_internal", b"utf-8\0", b"../../etc/passwd", b"\xff", b"8bit", b"binary", b"none", b"%s", b"'", b"a" * 10_000,
)  # fmt: skip
_NO_CHARSETS = (
    b"punycode", b"idna", b"rot13", b"zlib", b"bz2", b"hex", b"base64", b"uu", b"quopri", b"unicode_escape",
    b"raw_unicode_escape", b"undefined",
)  # fmt: skip
_COSTLY_CHARSETS = (
    b"utf-7", b"utf-8", b"utf-16", b"utf-16-le", b"utf-32", b"hz", b"iso-2022-jp", b"iso-2022-kr", b"iso-2022-jp-2",
    b"gb18030", b"big5", b"euc-jp", b"shift_jis", b"koi8-r", b"us-ascii", b"unknown", b"",
)  # fmt: skip
_TEXTS = (
    b"a", b"\xff", b"\xc3\xa9", b"\xc3", b"\xed\xa0\x80", b"\xd8\x00", b"\x00\xd8", b"+2AA-", b"+", b"~{VPND~}", b"~{",
    b"\x1b$B", b"\x1b$B!!\x1b(B", b"\x1b(I1", b"\x1b$)C\x0e0!\x0f", b"\x0e", b"\xff\xfe", b"\xef\xbb\xbf", b"\x81\x30\x81\x30",
    b"\xf0\x9f\x92\xa9", b"a\n", b"\n", b"\r", b"\r\n",
)  # fmt: skip


def _fill(piece: bytes, size: int) -> bytes:
    return piece * max(1, size // len(piece))


def _lines(content: bytes, length: int = 76) -> bytes:
    return b"\n".join(content[start : start + length] for start in range(0, len(content), length)) + b"\n"


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _single(fields: bytes, body: bytes) -> bytes:
    return _HEAD + fields + b"\n\n" + body


def _repeat(make: Callable[[int], bytes], size: int) -> bytes:
    """The results of `make` for 0, 1, 2, ... until the size is reached."""
    pieces: list[bytes] = []
    total = 0
    for number in count():
        if total >= size:
            return b"".join(pieces)
        pieces.append(make(number))
        total += len(pieces[-1])
    raise AssertionError("unreachable")


# Fields


def _every_field(before: bytes, piece: bytes, after: bytes) -> Kind:
    def make(size: int) -> bytes:
        flood = before + _fill(piece, min(LONGEST_FIELD, size // len(_FIELDS))) + after
        return b"".join(b"%s: %s\n" % (name, flood) for name in _FIELDS) + b"\nbody\n"

    return make


def _verdicts(piece: bytes) -> Kind:
    def make(size: int) -> bytes:
        flood = _fill(piece, min(LONGEST_FIELD, size // len(_VERDICTS)))
        return _repeat(lambda _: b"".join(field + flood + b"\n" for field in _VERDICTS), size) + b"\nbody\n"

    return make


def _repeated_field(name: bytes, body: bytes) -> Kind:
    """One field of the greatest length, repeated."""
    return lambda size: (
        _HEAD + _fill(b"%s: %s\n" % (name, _fill(body, min(size // 2, LONGEST_FIELD))), size) + b"\nbody\n"
    )


def _one_field(name: bytes, body: bytes) -> Kind:
    """One field as long as the message."""
    return lambda size: _HEAD + b"%s: %s\n\nbody\n" % (name, _fill(body, size))


def _subject_in(charset: bytes) -> Kind:
    word = b"=?%s?b?%s?= " % (charset, base64.b64encode(b"xn--" + b"a" * 40))
    return lambda size: (
        _HEAD
        + b"Subject: "
        + _fill(word, size // 2)
        + b"\nX-Long: =?%s?q?%s?=\n\n" % (charset, _fill(b"a-", size // 2))
    )


# Structure


def _nested(size: int) -> bytes:
    """Nested multiparts, each with its own boundary: 10,000 levels in 0.5 MB."""
    opening = _repeat(lambda level: b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (level, level), size)
    return _HEAD + opening + b"\ntext\n"


def _nested_and_closed(size: int) -> bytes:
    levels = max(1, size // 70)
    opening = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(levels))
    return _HEAD + opening + b"\ntext\n" + b"".join(b"--b%d--\n" % n for n in reversed(range(levels)))


def _nested_95(lines: bytes) -> Kind:
    """As deep as Postfix allows, and the rest of the size in lines of the innermost part."""
    return lambda size: _nested(95 * 52)[: -len(b"\ntext\n")] + b"\n" + _fill(lines, size)


def _attached_90(size: int) -> bytes:
    attached = b"Content-Type: message/rfc822\n\n" * 90
    return _HEAD + attached + b"Subject: the innermost\n\n" + _fill(b"a line of the innermost message\n", size)


def _attached_in_base64(size: int) -> bytes:
    """Each attached message is encoded once more, and grows by a third each time."""
    raw = b"Subject: the innermost\n\n" + b"a" * min(size // 8, 100_000) + b"\n"
    while len(raw) < size:
        raw = b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(raw)
    return _HEAD + raw


def _parts(part: bytes) -> Kind:
    """As many identical parts as fit."""
    return lambda size: _MIXED + _fill(b"--b\n" + part, size) + b"--b--\n"


def _hundred_parts(field: bytes, piece: bytes) -> Kind:
    """100 parts, each with one long field: at 10 MB it has 98 KB."""
    return lambda size: _MIXED + (b"--b\n%s%s\n\ntext\n" % (field, _fill(piece, size // 102))) * 100 + b"--b--\n"


def _boundary_prefixes(size: int) -> bytes:
    """Each boundary begins with the one before: a, aa, aaa, ..."""
    levels = min(99, max(2, int((2 * size) ** 0.5)))
    opening = b"".join(
        b"Content-Type: multipart/mixed; boundary=%s\n\n--%s\n" % (b"a" * n, b"a" * n) for n in range(1, levels)
    )
    return _HEAD + opening + b"\n" + _repeat(lambda n: b"--%s\n\ntext\n" % (b"a" * (1 + n % 120)), size)


def _boundary(boundary: bytes, line: bytes) -> Kind:
    """A boundary, and lines that equal it or nearly do."""
    return lambda size: _HEAD + b"Content-Type: multipart/mixed; boundary=%s\n\n%s" % (boundary, _fill(line, size))


def _same_boundary(size: int) -> bytes:
    return _MIXED + _fill(b"--b\nContent-Type: multipart/mixed; boundary=b\n\n", size)


def _parameters(make: Callable[[int], bytes]) -> Kind:
    def message(size: int) -> bytes:
        flood = b"Content-Disposition: attachment" + _repeat(make, min(size // 2, LONGEST_FIELD))
        part = b"--b\nContent-Type: text/plain%s\n%s\n\ntext\n" % (_repeat(make, min(size // 2, LONGEST_FIELD)), flood)
        return _MIXED + _fill(part, size) + b"--b--\n"

    return message


# Bodies


def _body(fields: bytes, body: bytes) -> Kind:
    """One body, filled with one piece."""
    return lambda size: _single(fields, _fill(body, size))


def _text_in(charset: bytes) -> Kind:
    """One part for each filling of a text, all in one charset."""
    part = b"--b\nContent-Type: text/plain; charset=%s\nContent-Transfer-Encoding: 8bit\n\n%s\n"
    return lambda size: (
        _MIXED + b"".join(part % (charset, _fill(text, size // len(_TEXTS))) for text in _TEXTS) + b"--b--\n"
    )


def _every_charset(size: int) -> bytes:
    octets = bytes(range(256)).replace(b"\n", b"")
    part = b"--b\nContent-Type: text/%s; charset=%s\n\n%s\n"
    return _MIXED + b"".join(
        part % (subtype, charset, _fill(octets, size // len(_CHARSETS) // 2))
        for subtype, charset in product((b"plain", b"html"), _CHARSETS)
    )


def _base64_rubbish(size: int) -> bytes:
    return _attachment(b"base64", _lines(_noise(size)))


def _attachment(encoding: bytes, content: bytes) -> bytes:
    fields = b"--b\nContent-Type: application/octet-stream; name=a\nContent-Transfer-Encoding: %s\n\n" % encoding
    return _MIXED + b"--b\n\ntext\n" + fields + content + b"\n--b--\n"


def _attached(encoding: bytes, piece: bytes) -> Kind:
    return lambda size: _attachment(encoding, _fill(piece, size))


def _good_attachment(size: int) -> bytes:
    """Hostile only by its size, which is that of the content: the message is larger by a third."""
    return _attachment(b"base64", base64.encodebytes(_noise(size)))


def _one_emoji(size: int) -> bytes:
    """A long text with one octet per character, except for one character that makes Python store four octets for
    each."""
    fields = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit"
    return _single(fields, _fill(b"all work and no play makes a dull message\n", size) + "\N{PILE OF POO}\n".encode())


def _emoji_header(size: int) -> bytes:
    """The same in the header, which is stored as JSON."""
    lines = _fill(b"X-Long: %s\n" % (b"a" * 60_000), size)
    return _HEAD + b"Subject: \xf0\x9f\x92\xa9\n" + lines + b"\nbody\n"


def _structure() -> Iterator[tuple[str, Kind]]:
    yield "nested", _nested
    yield "nested and closed", _nested_and_closed
    for lines in (b"a\n", b"--\n", b"--b9\n", b"--b94\n", b"--b", b"\n"):
        yield f"95 nested multiparts with lines {lines!r}", _nested_95(lines)
    yield "90 attached messages, one in another", _attached_90
    yield "attached messages in base64", _attached_in_base64
    yield "empty parts", _parts(b"")
    yield "empty parts with CRLF", lambda size: _parts(b"")(size).replace(b"\n", b"\r\n")
    yield "parts with an empty header", _parts(b"\n")
    yield "parts with text", _parts(b"\ntext\n")
    yield "parts with a header", _parts(b"Content-Type: text/html; charset=utf-8\nX: y\n\n<p>\n")
    yield "attachments", _parts(b"Content-Disposition: attachment; filename=a\n\na\n")
    yield "empty attached messages", _parts(b"Content-Type: message/rfc822\n\n")
    yield "a digest", lambda size: _parts(b"\n")(size).replace(b"mixed", b"digest")
    yield "multiparts in a row", _parts(b"Content-Type: multipart/mixed; boundary=c\n\n--c\n\n--c--\n")
    yield "multiparts without boundary", _parts(b"Content-Type: multipart/mixed\n\n")
    yield "the same boundary inside", _same_boundary
    yield "boundaries that begin with others", _boundary_prefixes
    for field, piece in product(
        (b"Content-Type: text/plain", b"Content-Disposition: attachment", b"Content-Type: ", b"Content-ID: ", b"X: "),
        (b";", b"; ", b";a", b";a=", b';a="', b';a="\\"', b";a*0=", b"(", b" ", b"=", b'"', b"\n ", b"\xff", b"=?a?q?"),
    ):
        yield f"100 parts with {field.decode()} full of {piece!r}", _hundred_parts(field, piece)
    for boundary, line in (
        (b"b", b"--\n"), (b"b", b"--c\n"), (b"b", b"--b--\n"), (b"b", b"--bb\n"), (b"b", b"--b c\n"), (b"b", b"--b --b"),
        (b"b", b"-"), (b"b", b"\n--"), (b"b", b"--b" + b" " * 9_000 + b"x\n"), (b"b", b"--b" + b" " * 200_000 + b"\n"),
        (b'"b c d"', b"--b c d e\n"), (b'" "', b"-- \n"), (b'""', b"--\n"), (b"a" * 9_000, b"--%s\n" % (b"a" * 9_000)),
        (b"a" * 20_000, b"--%s\n" % (b"a" * 20_000)), (b"none", b"--x" + b" " * 100_000), (b"none", b"--x \n"),
        (b"none", b"--x\t \nContent"), (b"none", b"--" + b"x" * 190 + b"\n"), (b"none", b"\n\n"), (b"-", b"---\n"),
    ):  # fmt: skip
        name = f"boundary {boundary[:9]!r} of {len(boundary)}, lines {line[:9]!r} of {len(line)}"
        yield name, _boundary(boundary, line)
    for name, parameter in (
        ("RFC 2231 sections", lambda n: b"; filename*%d*=utf-8''%%c3%%a9" % n),
        ("RFC 2231 sections backwards", lambda n: b"; filename*%d=a" % (100_000 - n)),
        ("RFC 2231 sections of one number", lambda n: b"; name*0*=a'b'c"),
        ("parameters of many names", lambda n: b"; a%d=b" % n),
        ("parameters of one name", lambda n: b"; charset=utf-%d" % n),
        ("quoted pairs in parameters", lambda n: b'; name="' + b"\\a" * 100 + b'"'),
    ):  # fmt: skip
        yield name, _parameters(parameter)


def _headers() -> Iterator[tuple[str, Kind]]:
    for field in (b"a: b\n", b"a:\n", b":\n", b"Subject: again\n", b"Received: by a; b\n", b"no field\n", b" \n", b"\r\n ", b"To: a@b\n",
                  b"Content-Type: text/plain\n", b"Message-ID: <a@b>\n", b"From a\n", b"Return-Path: <a@b>\n", b"a b: c\n", b"\xff: a\n",
                  b"\0: \0\n", b"Delivered-To: a\n b\n"):  # fmt: skip
        yield f"fields {field!r}", lambda size, field=field: _fill(field, size) + _HEAD + b"\nbody\n"  # type: ignore[misc]
    yield "a field name without end", lambda size: _fill(b"a", size)
    yield "fields of many names", lambda size: _repeat(lambda n: b"X-%d: %d\n" % (n, n), size) + _HEAD + b"\nbody\n"
    yield "a header of control characters", _repeated_field(b"X-Control", b"\x01\x02\x7f")
    yield "a header with an emoji", _emoji_header
    for name, body in product(
        (b"Subject", b"From", b"References", b"Date", b"Content-Type", b"X-Anything"),
        (b"a", b"9", b" ", b"=?utf-8?q?a", b"=?utf-8?q?a?= ", b"=?utf-8?b?w6k=?=\n ", b"<a@example.org> ", b"a@b, ", b"((((", b"\\(",
         b"(a)", b'"', b"\0", b"\xff", b"\n ", b"=?punycode?q?a-b?= "),
    ):  # fmt: skip
        yield f"one {name.decode()} of {body!r}", _one_field(name, body)
        if name in (b"Subject", b"From", b"References"):
            yield f"many {name.decode()} of {body!r}", _repeated_field(name, body)
    for charset in (*_NO_CHARSETS, *_COSTLY_CHARSETS):
        yield f"a Subject in {charset.decode()}", _subject_in(charset)
    for piece in _VERDICT_PIECES:
        yield f"verdicts full of {piece!r}", _verdicts(piece)


def _bodies() -> Iterator[tuple[str, Kind]]:
    yield "base64 rubbish", _base64_rubbish
    for piece in (b"=", b"====\n", b"A", b"A\n", b"A=\n", b"AAA=", b" A", b"\0", b"\xff", b"A-", b"AAAA\r\n", b"Q Q=="):
        yield f"base64 of {piece!r}", _attached(b"base64", piece)
    for piece in (
        b"=",
        b"=\n",
        b"=\r",
        b"= \n",
        b"= ",
        b"=   x",
        b"=3",
        b"=3D",
        b"=00",
        b"=C3=A9",
        b" ",
        b" \n",
        b"a=\n",
        b"=\r\n",
    ):
        yield f"quoted-printable of {piece!r}", _attached(b"quoted-printable", piece)
        fields = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable"
        yield f"quoted-printable text of {piece!r}", _body(fields, piece)
    for piece in (
        b"begin 644 a\n",
        b"M\n",
        b"begin 644 a\nM" + b"A" * 60 + b"\n",
        b"begin 644 a\n" + b"~\xff\n" * 200,
        b" \n",
    ):
        yield f"uuencode of {piece[:20]!r}", _attached(b"x-uuencode", piece)
    yield "an unknown transfer encoding", _attached(b"a" * 10_000, b"a\n")
    for charset in (*_NO_CHARSETS, *_COSTLY_CHARSETS):
        yield f"texts in {charset.decode() or 'no charset'}", _text_in(charset)
    yield "every charset", _every_charset
    for piece in (b"<meta ", b"<meta charset=", b"<", b"<!--", b"&#0;", b"<p>", b"<meta charset=punycode>\xff"):
        yield f"html of {piece!r}", _body(b"Content-Type: text/html", piece)
    yield "NUL alone", lambda size: bytes(size)
    yield "line ends alone", lambda size: _fill(b"\n", size)
    yield "noise alone", _noise
    yield "control characters alone", lambda size: _fill(bytes(range(1, 32)), size)
    yield "0xFF alone", lambda size: _fill(b"\xff", size)
    yield "no header, one line", lambda size: _fill(b"a", size)


def _large() -> Iterator[tuple[str, Kind]]:
    yield "an attachment", _good_attachment
    yield "text in one line", _body(b"Content-Type: text/plain", b"a")
    yield "text in short lines", _body(b"Content-Type: text/plain", b"a\n")
    yield "html", _body(b"Content-Type: text/html; charset=utf-8", b"<p>\xc3\xa9</p>\n")
    yield "quoted-printable text", _body(b"Content-Transfer-Encoding: quoted-printable", b"=C3=A9t=C3=A9=\n")
    yield "8-bit text without charset", _body(b"Content-Transfer-Encoding: 8bit", b"\xe9t\xe9\n")
    yield "8-bit text in UTF-8 with one error", lambda size: _single(b"", _fill("été\n".encode(), size) + b"\xff")
    yield "text with one emoji", _one_emoji
    yield "text of control characters", _body(b"Content-Type: text/plain", b"a" * 11 + b"\x01")
    yield "text of NUL", _body(b"Content-Type: text/plain", b"a" * 11 + b"\0")
    for charset in (b"utf-7", b"utf-16", b"iso-2022-jp", b"gb18030"):
        fields = b"Content-Type: text/plain; charset=" + charset
        yield (
            f"text in {charset.decode()}",
            _body(fields, b"\x1b$B!!\x1b(B" if charset == b"iso-2022-jp" else b"a+2AA-"),
        )


LARGE: dict[str, Kind] = dict(_large())
"""Kinds that a sender of large files may produce without bad intent: they are also tried with 50 MB."""

KINDS: dict[str, Kind] = {**dict(_structure()), **dict(_headers()), **dict(_bodies()), **LARGE}
"""All kinds that grow with their size."""

FLOODS: dict[str, Kind] = {
    f"every field {before!r} {piece!r} {after!r}": _every_field(before, piece, after)
    for (before, after), piece in product(_AROUND, _PIECES)
}
"""Every field there is, filled with one piece: the worst length for each field parser."""
