"""Decode stateful charsets, which switch by escape sequences within 7-bit text.

They are ISO-2022-JP, -KR and -CN (RFC 1468, 1557, 1922) and HZ (RFC 1843). They announce themselves, so the label
hardly matters. They return to ASCII at the end of each line, so lines in them can be mixed with lines in UTF-8.
"""

import re

from .charset import codec, strictly
from .plausibility import oddness

_ANNOUNCED = (
    (re.compile(rb"\x1b\$\)C"), "iso2022_kr"),
    (re.compile(rb"\x1b\$\)A"), "iso2022_cn"),
    (re.compile(rb"\x1b(?:\$[@B]|\([JI]|\$\(D)"), "iso2022_jp"),
)
_SWITCH = re.compile(rb"\x1b|\x0e|~\{")
_HZ = re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}")
_SHIFTED = re.compile(rb"\x0e([\x20-\x7e]*)\x0f?")
_DESIGNATION = re.compile(rb"\x1b\$[)*+][A-Z]")
_EUC_PAIRS = re.compile(rb"(?<![\x8e\x8f])(?:[\xa1-\xfe]{2})+")
_EUC_KATAKANA = re.compile(rb"(?:\x8e[\xa1-\xdf])+")
_REWRITTEN_OCTETS = 1_000_000  # rewritten at most, at some 150 ns each


def announced(octets: bytes) -> str | None:
    """Return the stateful charset whose escape sequences are in `octets`, or None. Python lacks "iso2022_cn"."""
    if b"\x1b" in octets:
        for pattern, name in _ANNOUNCED:
            if pattern.search(octets):
                return name
    return "hz" if b"~{" in octets and _is_hz(octets) else None


def read(octets: bytes, name: str) -> str | None:
    """Decode `octets` in the stateful charset `name`; None if invalid. Lines with 8-bit octets may be UTF-8."""
    if not octets.isascii():
        return _by_line(octets, name) if _SWITCH.search(octets) else None
    if name == "iso2022_cn":
        return _iso_2022_cn(octets)
    if name == "iso2022_kr" and b"\x0e" in octets and b"\x1b" not in octets:
        octets = b"\x1b$)C" + octets  # RFC 1557 requires it at the beginning; some senders omit it
    text = strictly(octets, name)
    if text is None and name == "hz" and b"~{" in octets:  # a "~" that is not doubled, as in a URL
        text = strictly(_HZ.sub(_eight_bit, octets), "gb2312")
    if text is None and name == "iso2022_jp" and len(octets) <= _REWRITTEN_OCTETS:
        text = strictly(octets, "iso2022_jp_ext") or strictly(_shift_jis(octets), "cp932")
    return text


def read_euc_jp(octets: bytes) -> str | None:
    """Decode EUC-JP with the NEC and IBM characters of Microsoft's variant (CP51932); None if it is not valid.

    Each run of pairs is rewritten as ISO-2022-JP, which has the same pairs between escapes.
    """
    if b"\x1b" in octets or len(octets) > _REWRITTEN_OCTETS:
        return None
    pairs = _EUC_PAIRS.sub(lambda run: b"\x1b$B%b\x1b(B" % bytes(octet & 0x7F for octet in run[0]), octets)
    escaped = _EUC_KATAKANA.sub(lambda run: b"\x1b(I%b\x1b(B" % bytes(octet & 0x7F for octet in run[0][1::2]), pairs)
    return strictly(_shift_jis(escaped), "cp932") if escaped.isascii() else None


def shifts(octets: bytes, label: str | None) -> bool:
    """Whether SO and SI in `octets` switch between ASCII and another alphabet, rather than being stray controls."""
    return codec(label) in ("iso2022_kr", "iso2022_cn") or _DESIGNATION.search(octets) is not None


def _is_hz(octets: bytes) -> bool:
    """Whether the octets between HZ marks are everyday characters of GB 2312. "~{" alone proves nothing."""
    if (found := _HZ.search(octets)) is None:
        return False
    text = strictly(_eight_bit(found), "gb2312")
    return text is not None and not oddness(text)


def _eight_bit(found: re.Match[bytes]) -> bytes:
    """Return the octets between HZ marks as 8-bit GB 2312 (EUC-CN)."""
    return bytes(octet | 0x80 for octet in found[0][2:-2])


def _by_line(octets: bytes, name: str) -> str | None:
    """Decode lines that are in `name` or in UTF-8; None if one of them is neither."""
    lines = []
    for line in octets.splitlines(keepends=True):
        text = read(line, name) if line.isascii() else strictly(line, "utf_8")
        if text is None:
            return None
        lines.append(text)
    return "".join(lines)


def _iso_2022_cn(octets: bytes) -> str | None:
    """Decode the part of ISO-2022-CN that mail uses: ASCII, and GB 2312 between SO and SI."""
    eight_bit = _SHIFTED.sub(lambda found: bytes(octet | 0x80 for octet in found[1]), octets)
    return strictly(_DESIGNATION.sub(b"", eight_bit), "gb2312")


def _shift_jis(octets: bytes) -> bytes:
    """Rewrite ISO-2022-JP (RFC 1468) as Shift_JIS.

    Needed for the NEC and IBM characters and half-width katakana of Microsoft's variant (CP50221).
    """
    out, mode = bytearray(), b""
    for index, run in enumerate(re.split(rb"\x1b(\$[@B]|\([BJI])", octets)):
        if index % 2:
            mode = run
        elif mode.startswith(b"$"):
            for lead, trail in zip(run[::2], run[1::2], strict=False):
                if 0x21 <= lead <= 0x7E and 0x21 <= trail <= 0x7E:
                    row = (lead - 0x21) // 2
                    out.append(row + (0x81 if row < 31 else 0xC1))
                    out.append(trail + (0x7E if lead % 2 == 0 else 0x1F + (trail >= 0x60)))
                else:
                    out += bytes((lead, trail))
            out += run[len(run) // 2 * 2 :]
        elif mode == b"(I":
            out += bytes(octet | 0x80 if 0x21 <= octet <= 0x5F else octet for octet in run)
        else:
            out += run
    return bytes(out)
