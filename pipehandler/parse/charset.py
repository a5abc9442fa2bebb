"""Charset labels (RFC 2978), their codecs, and making text storable.

A label is looked up in a fixed table, never in Python's codec registry: the registry has codecs that are not
charsets (punycode and idna take quadratic time, unicode_escape and rot13 are not text), and loads modules by name.
`storable` is the one place where text is made fit for PostgreSQL and JSON; every text of a ParsedMessage passes it.
"""

import codecs
import re
from encodings.aliases import aliases
from typing import NamedTuple

# Python's names of the codecs for the charsets of RFC 2046 4.1.2. A superset replaces a charset where mail is known
# to use the label for it: cp949 for KS X 1001, gb18030 for GB 2312, cp932 for Shift_JIS, big5hkscs for Big5.
_NAMES = (
    "ascii utf_8 utf_7 utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le cp949 johab iso2022_kr gb18030 hz "
    "big5hkscs cp950 cp932 shift_jis shift_jis_2004 shift_jisx0213 euc_jp euc_jis_2004 euc_jisx0213 iso2022_jp "
    "iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004 iso2022_jp_3 iso2022_jp_ext koi8_r koi8_t koi8_u kz1048 ptcp154 "
    "tis_620 latin_1 iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 "
    "iso8859_11 iso8859_13 iso8859_14 iso8859_15 iso8859_16 cp037 cp273 cp424 cp437 cp500 cp720 cp737 cp775 cp850 "
    "cp852 cp855 cp856 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 cp874 cp875 cp1006 cp1026 cp1125 "
    "cp1140 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 mac_cyrillic mac_greek mac_iceland "
    "mac_latin2 mac_roman mac_turkish hp_roman8"
)
_CODECS = frozenset(_NAMES.split())

WIDE = frozenset({"utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"})
# They switch by escape sequences within 7-bit text; stateful.py reads them.
STATEFUL = frozenset({
    "utf_7", "hz", "iso2022_kr", "iso2022_cn", "iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_2004",
    "iso2022_jp_3", "iso2022_jp_ext",
})  # fmt: skip
# Text in these may consist of octets below 0x80 only, yet is not ASCII.
SEVEN_BIT = WIDE | STATEFUL
# Mail is a superset of ASCII (RFC 5322 2.3, RFC 2046 4.1.2): these are used only if a label names them, never guessed.
EBCDIC = frozenset({"cp037", "cp273", "cp424", "cp500", "cp875", "cp1026", "cp1140"})
VISCII = "viscii"  # beyond ASCII like others, but six of its letters are control characters in ASCII

_SUPERSETS = {
    "euc_kr": "cp949", "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932",
    "utf_8_sig": "utf_8",
}  # fmt: skip

# Labels found in mail that Python does not know, without their punctuation.
_LABELS = {
    "ksc56011987": "cp949", "ksx1001": "cp949", "windows949": "cp949", "ms949": "cp949", "uhc": "cp949",
    "euckr": "cp949", "gb231280": "gb18030", "xgbk": "gb18030", "windows936": "gb18030", "gb": "gb18030",
    "hzgb2312": "hz", "xxbig5": "big5hkscs", "big5eten": "big5hkscs", "windows950": "cp950",
    "chinesebig5": "big5hkscs", "cnbig5": "big5hkscs", "big5tw": "big5hkscs", "big5hk": "big5hkscs",
    "bigfive": "big5hkscs", "big5e": "big5hkscs", "big5plus": "big5hkscs", "big52003": "big5hkscs",
    "tcabig5": "big5hkscs", "chinesetraditional": "big5hkscs", "zhtw": "big5hkscs",
    "chinesegb": "gb18030", "chinesegb2312": "gb18030", "chinesegbk": "gb18030", "chinesesimplified": "gb18030",
    "cngb": "gb18030", "gb23121980": "gb18030", "gbk2312": "gb18030", "gb180302000": "gb18030",
    "gb180302005": "gb18030", "gb180302022": "gb18030", "zhcn": "gb18030", "euccn": "gb18030", "eucgb2312cn": "gb18030",
    "iso2022cn": "iso2022_cn", "iso2022cnext": "iso2022_cn",
    "korean": "cp949", "ksc5601": "cp949", "ks5601": "cp949", "ksx10011992": "cp949", "kokr": "cp949",
    "unifiedhangul": "cp949", "extwansung": "cp949", "wansung": "cp949", "eucjpwin": "euc_jp", "japaneseeuc": "euc_jp",
    "japanesesjis": "cp932", "japanesejis": "iso2022_jp", "jajp": "cp932", "iso2022jp1978": "iso2022_jp",
    "thai": "cp874", "tis": "cp874", "tis6201": "cp874", "thth": "cp874", "iso885911": "cp874", "ibm874": "cp874",
    "koi8rus": "koi8_r", "russian": "cp1251", "win": "cp1251", "winansi": "cp1252", "western": "cp1252",
    "hebrewwindows": "cp1255", "hebrewiso": "iso8859_8", "arabicwindows": "cp1256", "turkishwindows": "cp1254",
    "greekwindows": "cp1253", "cyrillicwindows": "cp1251", "cyrillickoi8r": "koi8_r", "unicodefffe": "utf_16",
    "unicodefeff": "utf_16", "utf8n": "utf_8", "utf8bom": "utf_8", "utf8signature": "utf_8", "cesu8": "utf_8",
    "xsjis": "cp932", "sjis": "cp932", "shiftjis": "cp932", "windows31j": "cp932", "cswindows31j": "cp932",
    "mskanji": "cp932", "eucjpms": "euc_jp", "cp51932": "euc_jp", "iso2022jpms": "iso2022_jp",
    "cp50220": "iso2022_jp", "cp50221": "iso2022_jp", "cp50222": "iso2022_jp", "jis": "iso2022_jp",
    "iso88598i": "iso8859_8", "iso88598e": "iso8859_8", "visual": "iso8859_8", "logical": "iso8859_8",
    "iso88596i": "iso8859_6", "iso88596e": "iso8859_6", "windows874": "cp874", "dos874": "cp874",
    "utf8mb4": "utf_8", "utf8mb3": "utf_8", "unicode11utf8": "utf_8", "unicode20utf8": "utf_8", "utf": "utf_8",
    "unicode": "utf_16", "ucs2": "utf_16", "ucs4": "utf_32", "iso10646ucs2": "utf_16", "iso10646ucs4": "utf_32",
    "unicode11utf7": "utf_7", "unicode20utf7": "utf_7", "xunicode20utf7": "utf_7",
    "ansi": "cp1252", "westerneuropeanwindows": "cp1252", "xuserdefined": "cp1252", "xansi": "cp1252",
    "macintosh": "mac_roman", "xmacroman": "mac_roman", "xmaccyrillic": "mac_cyrillic", "xmacgreek": "mac_greek",
    "xmacturkish": "mac_turkish", "koi": "koi8_r", "koi8": "koi8_r", "koi8ru": "koi8_u", "koi8unicode": "koi8_u",
    "macce": "mac_latin2", "maccenteuro": "mac_latin2", "maccentraleurope": "mac_latin2",
    "maccentraleurroman": "mac_latin2", "macicelandic": "mac_iceland", "macukrainian": "mac_cyrillic", "mac": "mac_roman",
    "macchinesesimp": "gb18030", "macchinesetrad": "big5hkscs", "mscp932": "cp932", "sjiswin": "cp932",
    "eucpkdfmtjapanese": "euc_jp", "iso2022jpesc": "iso2022_jp", "isoir149": "cp949", "ksc56011989": "cp949",
    "suneugreek": "iso8859_7", "isolatin9": "iso8859_15", "iso8859151998": "iso8859_15",
    "windows31latin1": "cp1252", "windows31latin2": "cp1250", "windows31latin5": "cp1254", "msansi": "cp1252",
    "msee": "cp1250", "mscyrl": "cp1251", "msgreek": "cp1253", "msturk": "cp1254", "mshebr": "cp1255", "msarab": "cp1256",
    "winbaltrim": "cp1257", "874": "cp874", "ibm932": "cp932", "ibm943": "cp932", "utf8mac": "utf_8", "ucs2be": "utf_16_be",
    "ucs2le": "utf_16_le", "ucs4be": "utf_32_be", "ucs4le": "utf_32_le", "usascii1": "ascii",
    "viscii": VISCII, "viscii11": VISCII, "viscii111": VISCII,
    "646": "ascii", "iso646": "ascii", "us": "ascii", "usascii": "ascii", "usasc": "ascii", "asciius": "ascii",
}  # fmt: skip

# Compiled on first use (re caches them): most fields are printable.
_LINE_ENDS = "[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]"
_BLANKS = "[ \t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+"
_WITHOUT_CONTROLS = dict.fromkeys([*range(1, 32), *range(127, 160)])  # NUL is left for `storable`, which reports it

_SURROGATES = re.compile("[\ud800-\udfff]")
_BLOCK = 1_000_000  # characters that are encoded at a time: in UTF-8 they take up to four times their number


class Decoded(NamedTuple):
    """Decoded text (not yet storable), the codec used, and any deviation from the label.

    `guessed` is the reason why the label was not followed, "" if it was. `replaced` counts the places that became
    U+FFFD.
    """

    text: str
    codec: str
    guessed: str = ""
    replaced: int = 0


class Hints(list[str]):
    """Charset labels that are likely in one message, likeliest first, and the number of detector runs left.

    A message can have thousands of unlabelled encoded-words and fields, and a detection takes 0.3 ms.
    """

    detections = 200

    def may_detect(self) -> bool:
        """Whether one more detection is allowed; each call that returns True uses one up."""
        self.detections -= 1
        return self.detections >= 0


def _find(name: str) -> codecs.CodecInfo | None:
    """Return the codec that Python lacks, for its registry."""
    if name != VISCII:
        return None
    from . import viscii  # which few messages need

    return viscii.CODEC


codecs.register(_find)


def storable(text: str) -> str:
    """Return `text` as PostgreSQL and UTF-8 can hold it: NUL and lone surrogates become U+FFFD."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # a regular expression would take ten times the memory
    if text.isascii():
        return text
    try:
        for start in range(0, len(text), _BLOCK):
            text[start : start + _BLOCK].encode()  # a tenth of the time of a search for surrogates
    except UnicodeEncodeError:
        return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
    return text


def one_line(text: str) -> str:
    """Return `text` of a header field as one line that is safe to display (RFC 2047 5, end).

    A line end or tab becomes one blank, together with the blanks around it (RFC 5322 3.2.2: folding means one space);
    other control characters are removed.
    """
    if text.isprintable():
        return text
    text = re.sub(_BLANKS, lambda run: " " if re.search(_LINE_ENDS, run[0]) else run[0], text)
    return text.translate(_WITHOUT_CONTROLS)


def strictly(octets: bytes, name: str) -> str | None:
    """Decode `octets` with the codec `name`; return None if they are not valid in it."""
    try:
        return octets.decode(name)
    except ValueError:  # the base class of UnicodeError
        return None


def is_utf8(octets: bytes) -> bool:
    """Whether `octets` are valid UTF-8 (RFC 3629)."""
    return octets.isascii() or strictly(octets, "utf_8") is not None


def codec(label: str | None) -> str | None:
    """Return the name of Python's codec for a charset label; None if the table has none.

    One name is not Python's: iso2022_cn, which `stateful` reads.
    """
    if not label or len(label) > 60:
        return None
    key = _squeeze(label)
    if key in _TABLE:
        return _TABLE[key]
    for prefix in ("charset", "cs", "x", "3d"):  # "=3D" is left of quoted-printable
        if key.startswith(prefix) and key[len(prefix) :] in _TABLE:
            return _TABLE[key[len(prefix) :]]
    return None


def _squeeze(label: str) -> str:
    return "".join(filter(str.isalnum, label.lower()))


def _table() -> dict[str, str]:
    names = {name: name for name in _CODECS}
    for name in _CODECS:  # Java writes 8859_2; other senders dos-866, win-1251
        if name.startswith("iso8859_"):
            names[name.removeprefix("iso")] = name
        elif name.startswith("cp"):
            names[f"{'win' if name.startswith('cp125') else 'dos'}{name[2:]}"] = name
    names["8859_1"] = "latin_1"
    for alias, name in aliases.items():
        if (better := _SUPERSETS.get(name, name)) in _CODECS:
            names[alias] = better
    # Python's names have no other punctuation (a test checks); _squeeze would take most of this module's load time.
    squeezed = {name.lower().replace("_", "").replace(".", ""): better for name, better in (names | _SUPERSETS).items()}
    return squeezed | _LABELS


_TABLE = _table()
