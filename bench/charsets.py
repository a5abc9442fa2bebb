"""How much text is decoded correctly under the right label, under every other label and without one.

    PYTHONPATH=tests python bench/charsets.py [--misses]

Sentences in 25 languages (tests/harness/everyday_text.py) at 20, 200 and 2,000 characters (repeated until they are long
enough) are encoded in every charset below that can hold them. Each is decoded under every label and without one. The
answer counts as right only if it is the text, character by character. Most charsets that can hold a text are never used
for its language (Russian in EUC-JP); the usual ones are counted separately.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator

from harness.everyday_text import TEXTS, USUAL

from pipehandler.parse.decoding import decode

# Label in mail: Python's codec. Apart from the DOS and Macintosh code pages, all are labels that mail clients write.
CHARSETS = {
    "utf-8": "utf-8", "utf-7": "utf-7", "utf-16": "utf-16", "utf-16be": "utf-16-be", "utf-16le": "utf-16-le",
    "iso-8859-1": "cp1252", "iso-8859-2": "iso8859-2", "iso-8859-3": "iso8859-3", "iso-8859-4": "iso8859-4",
    "iso-8859-5": "iso8859-5", "iso-8859-6": "iso8859-6", "iso-8859-7": "iso8859-7", "iso-8859-8": "iso8859-8",
    "iso-8859-9": "iso8859-9", "iso-8859-10": "iso8859-10", "iso-8859-13": "iso8859-13", "iso-8859-15": "iso8859-15",
    "iso-8859-16": "iso8859-16", "windows-1250": "cp1250", "windows-1251": "cp1251", "windows-1252": "cp1252",
    "windows-1253": "cp1253", "windows-1254": "cp1254", "windows-1255": "cp1255", "windows-1256": "cp1256",
    "windows-1257": "cp1257", "windows-1258": "cp1258", "windows-874": "cp874", "tis-620": "tis-620",
    "koi8-r": "koi8-r", "koi8-u": "koi8-u", "ibm850": "cp850", "ibm852": "cp852", "ibm866": "cp866",
    "macintosh": "mac-roman", "iso-2022-jp": "iso2022_jp", "shift_jis": "cp932", "euc-jp": "euc_jp",
    "gb2312": "gb2312", "gbk": "gbk", "gb18030": "gb18030", "hz-gb-2312": "hz", "big5": "big5",
    "euc-kr": "euc_kr", "ks_c_5601-1987": "cp949", "iso-2022-kr": "iso2022_kr",
}  # fmt: skip
USELESS = {"no label": None, "us-ascii": "us-ascii", "unknown label": "x-unknown"}
LENGTHS = (20, 200, 2_000)
SAMPLES = 3  # for each language and length, each starting at another sentence


def samples(language: str, length: int) -> Iterator[str]:
    """Texts of `length` characters, from the beginning of different sentences."""
    sentences = TEXTS[language]
    for first in range(SAMPLES):
        order = sentences[first:] + sentences[:first]
        line = "\n".join(order) + "\n"
        yield (line * (length // len(line) + 1))[:length].rstrip("\n")


def encodings(text: str) -> Iterator[tuple[str, bytes]]:
    """The charsets that can encode `text`, with its octets; without those in which it is plain ASCII."""
    for label, codec in CHARSETS.items():
        try:
            octets = text.encode(codec)
        except UnicodeError:
            continue
        if not text.isascii():
            yield label, octets


def kind(language: str, written: str, label: str, same: bool) -> str:
    """The row of the table for a text in `written` under `label`."""
    if same:
        return "the right label"
    what = "UTF-8" if written == "utf-8" else "usual charset" if written in USUAL[language] else "unusual charset"
    if label in USELESS:
        return f"{what}, no label of use"
    return f"{what}, label utf-8" if label == "utf-8" else f"{what}, another label"


def main() -> None:
    """Print the share of texts decoded correctly, by kind of label and length; with --misses also those that were
    not."""
    right: dict[tuple[str, int], int] = defaultdict(int)
    all_: dict[tuple[str, int], int] = defaultdict(int)
    misses: dict[tuple[str, str, str, int], int] = defaultdict(int)
    begin = time.process_time()
    for language in TEXTS:
        for length in LENGTHS:
            for text in samples(language, length):
                held = dict(encodings(text))
                for written, octets in held.items():
                    for name, label in (USELESS | {name: name for name in CHARSETS}).items():
                        key = kind(language, written, name, held.get(name) == octets), length
                        found = decode(octets, label).text == text
                        all_[key] += 1
                        right[key] += found
                        if not found:
                            misses[language, written, name, length] += 1
    print("| text and label | " + " | ".join(f"{length:,} characters" for length in LENGTHS) + " | texts |")
    print("|---" * (len(LENGTHS) + 2) + "|")
    rows = sorted({row for row, _ in all_})
    for row in [*rows, "all"]:
        cells, count = [], 0
        for length in LENGTHS:
            keys = [key for key in all_ if key[1] == length and row in (key[0], "all")]
            total = sum(all_[key] for key in keys)
            count += total
            cells.append(f"{100 * sum(right[key] for key in keys) / total:.1f} %")
        print(f"| {row} | " + " | ".join(cells) + f" | {count:,} |")
    print(f"{time.process_time() - begin:.0f} s of CPU", file=sys.stderr)
    if "--misses" in sys.argv:
        for miss, count in sorted(misses.items()):
            print(*miss, count, sep="\t")


if __name__ == "__main__":
    main()
