"""What costly mail does to the page and to other visitors, behind script/inbox-page."""

import base64
import threading
import time
from pathlib import Path

from harness.database import Database
from harness.images import png
from harness.inboxes import issue, send
from harness.web import Visitor, WebServer

from pipehandler.parse.message import parse

_NOTICE = "too complicated to be made safe"


def _html(number: int, html: str) -> bytes:
    head = (
        f"From: a@example.org\nSubject: costly {number}\nMessage-ID: <costly{number}@example.org>\nMIME-Version: 1.0\n"
    )
    return f"{head}Content-Type: text/html; charset=utf-8\n\n{html}\n".encode()


def _image() -> bytes:

    content = base64.encodebytes(png(30_000, 30_000))
    return (
        b"From: a@example.org\nSubject: image\nMessage-ID: <image@example.org>\nMIME-Version: 1.0\n"
        b"Content-Type: image/png; name=x.png\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n"
        + content
    )


def resources(database: Database, folder: Path) -> bool:
    """Open costly mail while another visitor reads; whether its text was shown each time."""
    issue(database, max_octets=10**9)
    cases = {
        "100,000 nested elements": _html(1, "the text" + "\n<div>" * 100_000),
        "100,000 attributes": _html(2, "<p\n" + "\n".join(f"a{each}=1" for each in range(100_000)) + ">the text"),
        "50 MB of HTML": _html(3, "<p>the text</p>\n" * (50_000_000 // 16)),
        "a PNG of 30,000 x 30,000": _image(),
    }
    whole = True
    print(f"{'':26} {'shown':>8} {'notice':>7} {'others, p99':>12} {'memory, peak':>13}")
    with WebServer(folder, database.server.conninfo(database.name, user="page")) as page:
        for name, raw in cases.items():
            owner, other = Visitor(page), Visitor(page)
            owner.open()
            other.open()
            (delivery,) = send(database, owner.inbox()["address"], raw=raw, parsed=parse(raw))
            other.get("inbox")
            status = Path(f"/proc/{page.pid}/status")
            Path(f"/proc/{page.pid}/clear_refs").write_text("5")  # the peak starts here
            times: list[float] = []
            before, done = _peak(status), threading.Event()
            reading = threading.Thread(target=_read, args=(other, times, done))
            reading.start()
            began = time.monotonic()
            shown = owner.get(f"m/{delivery}").text
            seconds = time.monotonic() - began
            time.sleep(2)
            done.set()
            reading.join()
            image = "PNG" in name
            whole = whole and (image or "the text" in shown)
            notice = "-" if image else "yes" if _NOTICE in shown else "no"
            high = sorted(times)[int(0.99 * (len(times) - 1))]
            print(
                f"{name:26} {seconds:6.2f} s {notice:>7} {1000 * high:9.1f} ms {(_peak(status) - before) / 1024:+10.1f} MB",
                flush=True,
            )
            if image:
                thumbnail = owner.get(f"m/{delivery}/part/1?thumbnail=1", {"Sec-Fetch-Dest": "image"}).status
                print(f"    its thumbnail: {thumbnail}; on the page: {'thumbnail=1' in shown}")
                whole = whole and thumbnail == 404
    return whole


def _read(visitor: Visitor, times: list[float], done: threading.Event) -> None:
    while not done.is_set():
        began = time.monotonic()
        visitor.get("inbox")
        times.append(time.monotonic() - began)
        time.sleep(0.005)


def _peak(status: Path) -> int:
    """Kilobytes of memory at the most since the peak was reset."""
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
