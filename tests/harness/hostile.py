"""Messages made to cost time and memory, and what parsing one costs."""

import base64
import subprocess
import sys
from collections.abc import Callable

HEADER = b"From: a@example.org\nTo: b@example.net\nSubject: x\nDate: Tue, 14 Mar 2023 09:26:53 +0100\n"
MIXED = HEADER + b"Content-Type: multipart/mixed; boundary=b\n\n"


MEASURE = """
import resource, sys, time
from pipehandler.parse import message
message.parse(b"a: b\\n\\n\\xe4")
raw = sys.stdin.buffer.read()
before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
parsed = message.parse(raw)
seconds = time.process_time() - begin
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def cost(raw: bytes) -> tuple[float, float]:
    """The cost of parsing `raw` in a separate process: seconds of CPU, and MB in addition to `raw`."""
    done = subprocess.run([sys.executable, "-c", MEASURE], input=raw, capture_output=True, check=True)
    seconds, kilobytes = done.stdout.split()
    return float(seconds), int(kilobytes) / 1_000


def nested(count: int, lines: bytes, kind: bytes = b"mixed") -> bytes:
    """`count` nested multiparts, and `lines` in the innermost."""
    levels = (b"Content-Type: multipart/%b; boundary=b%d\n\n--b%d\n" % (kind, n, n) for n in range(count))
    return HEADER + b"".join(levels) + b"Content-Type: text/plain\n\n" + lines


def flowed(lines: bytes) -> bytes:
    """A message in format=flowed."""
    return HEADER + b"Content-Type: text/plain; format=flowed\n\n" + lines


# The beginning of an opaque signature whose content is one piece as long as the message.
SIGNED = bytes.fromhex("308006092a864886f70d010702a08030800201013100308006092a864886f70d010701a08004847f000000")

HOSTILE: dict[str, Callable[[], bytes]] = {
    "unterminated encoded-words": lambda: b"Subject: " + b"=?utf-8?q?a" * 9_000 + b"\n\n",
    "100 such fields": lambda: (b"Subject: " + b"=?utf-8?q?a" * 9_000 + b"\n") * 100,
    "100,000 encoded-words": lambda: b"Subject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\n",
    "punycode encoded-word": lambda: b"Subject: =?punycode?q?" + b"a" * 200_000 + b"?=\n\n",
    "punycode body": lambda: HEADER + b"Content-Type: text/plain; charset=punycode\n\n" + b"a-" * 500_000,
    "idna body": lambda: HEADER + b"Content-Type: text/plain; charset=idna\n\n" + b"a." * 500_000,
    "semicolons": lambda: MIXED + (b"--b\nContent-Type: text/plain" + b";" * 98_000 + b"\n\nx\n") * 100,
    "empty parts": lambda: MIXED + b"--b\n" * 2_000_000,
    "100,000 parts": lambda: MIXED + b"--b\nContent-Type: text/plain; name=a\n\nx\n" * 100_000,
    "messages in messages": lambda: (HEADER + b"Content-Type: message/rfc822\n\n") * 90 + b"x\n" * 4_500_000,
    "nested multiparts": lambda: nested(95, b"line\n" * 1_800_000),
    "nested multiparts, delimiter-like lines": lambda: nested(95, b"--x\n" * 2_250_000),
    "10,000 levels": lambda: nested(10_000, b"x"),
    "100,000 fields": lambda: b"X-A: b\n" * 100_000,
    "3 million fields": lambda: b"a:\n" * 3_300_000,
    "a field of 10 MB": lambda: b"Subject: " + b"a" * 10_000_000,
    "a folded field of 10 MB": lambda: b"Subject: a" + b"\n b" * 3_300_000,
    "blank lines before the header": lambda: b" \n" * 5_000_000 + HEADER,
    "folds without blanks": lambda: b"A: ;\n" + b"x;\n" * 3_300_000,
    "NUL": lambda: b"\0" * 10_000_000,
    "base64 rubbish": lambda: HEADER + b"Content-Transfer-Encoding: base64\n\n" + b"*A\n" * 3_300_000,
    "quoted-printable rubbish": lambda: HEADER + b"Content-Transfer-Encoding: quoted-printable\n\n" + b"=G" * 5_000_000,
    "soft line breaks with blanks": lambda: (
        HEADER + b"Content-Transfer-Encoding: quoted-printable\n\n" + b"= \n" * 3_300_000
    ),
    "soft line breaks with CR": lambda: (
        HEADER + b"Content-Transfer-Encoding: quoted-printable\n\n" + b"=\r" * 5_000_000
    ),
    "uuencode rubbish": lambda: (
        HEADER + b"Content-Transfer-Encoding: uuencode\n\nbegin 644 x\n" + b"M\xff\n" * 3_300_000
    ),
    "8-bit rubbish": lambda: HEADER + b"\n" + bytes(range(128, 256)) * 78_000,
    "1,000 charsets to guess": lambda: MIXED + b"--b\nContent-Type: text/html; name=\xfc\n\n\xe4\xf6\xfc\n" * 1_000,
    "encoded-words to guess": lambda: (
        (
            b"To: "
            + b", ".join(b"=?x?q?=%02X=E4%d=F6?= <a@b>" % (128 + number % 128, number) for number in range(3_500))
            + b"\n"
        ).replace(b"To", b"Cc")
        + b"\n"
    ),
    "UTF-8 with gaps": lambda: HEADER + b"\n" + b"\xc3\xa4\xc3\xa4\xe4" * 2_000_000,
    "surrogates": lambda: HEADER + b"\n" + b"\xed\xa0\xbd\xed\xb8\x80" * 1_600_000,
    "flowed lines": lambda: flowed(b"a \n" * 3_300_000),
    "flowed quotes": lambda: flowed(b"> \n" * 3_300_000),
    "flowed quote marks": lambda: flowed(b">" * 10_000_000),
    "base64 blocks": lambda: HEADER + b"Content-Transfer-Encoding: base64\n\n" + b"QQ==\n" * 2_000_000,
    "base64 and blanks": lambda: HEADER + b"Content-Transfer-Encoding: base64\n\nQUJD\n" + b" \n" * 5_000_000 + b"*",
    "quoted-printable pairs": lambda: (
        HEADER + b"Content-Transfer-Encoding: quoted-printable\n\n" + b"===\n" * 2_500_000
    ),
    "quoted-printable blanks": lambda: HEADER + b"Content-Transfer-Encoding: quoted-printable\n\n" + b" \n" * 5_000_000,
    "quoted-printable blanks in a row": lambda: (
        HEADER + b"Content-Transfer-Encoding: quoted-printable\n\n" + b" " * 5_000_000 + b"x\t \n"
    ),
    "uuencoded file": lambda: HEADER + b"\nbegin 644 x\n" + b"M" * 61 + b"\n" + (b"M" * 61 + b"\n") * 160_000,
    "uuencoded short lines": lambda: HEADER + b"\nbegin 644 x\n" + b"!  \n" * 2_500_000,
    "uuencoded files": lambda: HEADER + b"\n" + b"begin 644 x\n#0V%T\n`\nend\n" * 350_000,
    "beginnings of uuencoded files": lambda: HEADER + b"\n" + b"begin 644 x\n" * 800_000,
    "texts beside HTML": lambda: (
        MIXED
        + b"--b\nContent-Type: text/html\n\n<p>\n"
        + (b"--b\nContent-Type: text/plain\n\n" + b"<&>" * 3_300 + b"\n") * 990
    ),
    "nested alternatives": lambda: (
        nested(95, b"x\n" * 1_000_000, b"alternative")
        + b"\n"
        + b"\n".join(b"--b%d\nContent-Type: text/html\n\n<p>\n" % number for number in reversed(range(95)))
    ),
    "repeated Content-Type": lambda: (
        MIXED + (b"--b\n" + b"Content-Type: multipart/mixed; boundary=x\n" * 200 + b"\n" + b"x\n" * 800) * 1_000
    ),
    "junk in the headers of parts": lambda: (
        MIXED + (b"--b\nContent-Type: text/plain\n" + b"junk\n" * 2_000 + b"\n") * 1_000
    ),
    "signed messages": lambda: (
        MIXED + (b"--b\nContent-Type: application/pkcs7-mime\n\n" + SIGNED + b"a" * 9_000 + b"\n") * 1_000
    ),
    "signed messages in one another": lambda: (
        HEADER + (b"Content-Type: application/pkcs7-mime\n\n" + SIGNED) * 20 + b"x" * 10_000_000
    ),
    "a signed message in pieces": lambda: (
        HEADER + b"Content-Type: application/pkcs7-mime\n\n" + SIGNED[:-6] + b"\x24\x80" + b"\x04\x01a" * 3_300_000
    ),
    "encoded multiparts": lambda: (
        MIXED
        + (
            b"--b\nContent-Type: multipart/mixed; boundary=c\nContent-Transfer-Encoding: base64\n\n"
            + base64.encodebytes(b"--c\n\nx\n" * 900)
        )
        * 1_000
    ),
    "winmail.dat of attributes": lambda: (
        HEADER + b"Content-Type: application/ms-tnef\n\n\x78\x9f\x3e\x22\1\0" + b"\2\2\x90\6\0\0\0\0\0\0\0" * 900_000
    ),
    "many winmail.dat": lambda: (
        MIXED
        + (
            b"--b\nContent-Type: application/ms-tnef\n\n\x78\x9f\x3e\x22\1\0"
            + b"\2\2\x90\6\0\0\0\0\0\0\0" * 900
            + b"\n"
        )
        * 1_000
    ),
    "100 destinations": lambda: (b"To: " + b"a@b," * 24_000 + b"\n") * 100,
    "boundary collisions": lambda: MIXED + b"--b\nContent-Type: multipart/mixed; boundary=b\n\n" * 200_000,
}
