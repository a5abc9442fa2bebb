"""The messages that are sent: distinct newsletters of any size, and a mix of real mail."""

import base64
import random
from pathlib import Path

from corpus.messages import FOLDER, names, read

_WORDS = [
    "der",
    "die",
    "das",
    "ein",
    "eine",
    "und",
    "oder",
    "für",
    "mit",
    "ohne",
    "nach",
    "bei",
    "von",
    "zu",
    "auf",
    "an",
    "in",
    "aus",
    "Garten",
    "Frühling",
    "Balkon",
    "Beet",
    "Erde",
    "Wasser",
    "Licht",
    "Schatten",
    "Sonne",
    "Regen",
    "Kräuter",
    "Tomaten",
    "Rosen",
    "Bohnen",
    "Salat",
    "Samen",
    "Knolle",
    "Zwiebel",
    "Blatt",
    "Blüte",
    "Frucht",
    "Ernte",
    "wächst",
    "blüht",
    "braucht",
    "gießen",
    "pflanzen",
    "säen",
    "schneiden",
    "ernten",
    "düngen",
    "früh",
    "spät",
    "warm",
    "kühl",
    "hell",
    "dunkel",
    "groß",
    "klein",
    "neu",
    "alt",
    "frisch",
    "trocken",
    "drei",
    "vier",
    "fünf",
    "Vorschläge",
    "Ideen",
    "Tipps",
    "Woche",
    "Monat",
    "März",
    "April",
    "Mai",
    "Angebot",
    "Versand",
    "bestellen",
    "heute",
    "morgen",
    "immer",
    "nie",
    "oft",
    "selten",
]
WITH_ATTACHMENT = 100_000
_RECEIVED_MOST = 40  # Postfix treats a message with more than 50 (hopcount_limit) as a loop


def newsletter(number: int, octets: int = 12_000) -> bytes:
    """A distinct newsletter of about `octets`, text and HTML."""
    half = (octets - 1000) // 2
    text = _text(number, half)
    html = "".join(f"<p style='margin:0'>{line}</p>\n" for line in _text(-number - 1, half * 4 // 5).splitlines())
    parts = (
        f"--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{text}\n"
        f"--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{html}\n--b--\n"
    )
    return (_fields(number) + f"Content-Type: multipart/alternative; boundary=b\n\n{parts}").encode()


def text(number: int, octets: int) -> bytes:
    """A message of about `octets`, all of it text in UTF-8; a large one repeats itself."""
    once = _text(number, min(octets - 700, 1_000_000))
    return (
        _fields(number) + "Content-Type: text/plain; charset=utf-8\n\n" + once * max(1, octets // 1_000_000)
    ).encode()


def html(number: int, octets: int) -> bytes:
    """A message of about `octets` that has only HTML."""
    lines = _text(number, octets * 4 // 5 - 700).splitlines()
    body = "".join(f"<p style='margin:0'>{line}</p>\n" for line in lines)
    return (_fields(number) + f"Content-Type: text/html; charset=utf-8\n\n<html><body>{body}</body></html>\n").encode()


def legacy(number: int, octets: int) -> bytes:
    """A message of about `octets`, all of it text in windows-1251."""
    chance = random.Random(number)
    words = [
        "весна",
        "сад",
        "цветы",
        "новости",
        "письмо",
        "читатель",
        "сегодня",
        "завтра",
        "балкон",
        "рассада",
        "томаты",
        "вода",
        "солнце",
    ]
    lines = "".join(" ".join(chance.choices(words, k=12)).capitalize() + ".\n" for _ in range((octets - 700) // 85))
    return (_fields(number) + "Content-Type: text/plain; charset=windows-1251\n\n").encode() + lines.encode("cp1251")


def message(number: int, octets: int) -> bytes:
    """A message of about `octets`: a newsletter; from WITH_ATTACHMENT on it has an attachment, as large mail does."""
    if octets < 2000:
        return text(number, octets)
    if octets < WITH_ATTACHMENT:
        return newsletter(number, octets)
    content = random.Random(number).randbytes((octets - 1500) * 57 // 77)  # 76 octets in a line, as base64 of 57
    return (
        _fields(number)
        + f"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\n{_text(number, 500)}\n"
        + '--b\nContent-Type: image/jpeg\nContent-Disposition: attachment; filename="garden.jpg"\n'
        + f"Content-Transfer-Encoding: base64\n\n{base64.encodebytes(content).decode()}\n--b--\n"
    ).encode()


def mix(count: int) -> tuple[str, list[bytes]]:
    """A mix of `count` messages with LF line ends, and its description: sizes are distributed as in the corpus of real
    mail.

    Without the corpus: newsletters with the sizes of its messages.
    """
    if (FOLDER / "MANIFEST.tsv").is_file():
        found = [each for each in (read(name).replace(b"\r\n", b"\n") for name in names()) if _travels(each)]
        found.sort(key=lambda each: (len(each), each))
        chosen = [found[len(found) * (2 * place + 1) // (2 * count)] for place in range(count)]
        what = f"{count} real messages, chosen evenly by size from a corpus of {len(found)}"
    else:
        chosen = [message(place, _SIZES[len(_SIZES) * (2 * place + 1) // (2 * count)]) for place in range(count)]
        what = f"{count} generated messages with the sizes of real ones (the corpus is not here)"
    sizes = [len(each) for each in chosen]
    return f"{what}; median {sizes[count // 2]:,} octets, mean {sum(sizes) // count:,}, largest {sizes[-1]:,}", chosen


_SIZES = (
    43, 142, 291, 553, 896, 1506, 2033, 3081, 6231, 9256, 20_000, 35_724, 245_917,
)  # fmt: skip


def _travels(raw: bytes) -> bool:
    """Whether SMTP can carry it unchanged: its header does not look like a loop to Postfix, and it has no NUL or bare
    CR."""
    return bool(raw.strip()) and raw.lower().count(b"\nreceived:") <= _RECEIVED_MOST and not {0, 13} & set(raw)


def _fields(number: int) -> str:
    return (
        "Received: from out.sender.example (out.sender.example [192.0.2.7])\n\tby mx.example.net (Postfix) with ESMTPS id 4X"
        f"{number:012d}\n\tfor <member@example.com>; Mon, 02 Mar 2026 07:30:02 +0900 (KST)\n"
        "From: =?utf-8?q?Die_G=C3=A4rtnerei?= <news@sender.example>\nTo: member@example.com\n"
        "Subject: =?utf-8?b?RsO8ciBqZWRlbiBCYWxrb24=?=\nDate: Mon, 02 Mar 2026 07:30:00 +0900\n"
        f"Message-ID: <{number}.bench@sender.example>\nList-Id: Garden <garden.sender.example>\nMIME-Version: 1.0\n"
    )


def _text(seed: int, octets: int) -> str:
    """Lines of words, about `octets` long: real text does not repeat itself, and so compresses less well."""
    chance = random.Random(seed)
    lines = []
    while octets > 0:
        lines.append(" ".join(chance.choices(_WORDS, k=15)))
        octets -= len(lines[-1].encode()) + 1
    return "".join(f"{each}\n" for each in lines)


def keep(messages: list[bytes], folder: Path) -> list[Path]:
    """Write the messages into files for smtp-source."""
    files = [folder / f"message{number}" for number in range(len(messages))]
    for file, raw in zip(files, messages, strict=True):
        file.write_bytes(raw)
    return files
