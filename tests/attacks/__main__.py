"""All hostile mail behind each layer alone and all together; prints what ran, and what was requested. See script/attacks."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from .leaks import leaks
from .payloads import collected, payloads
from .rig import LAYERS, Rig, names_in

ALONE: tuple[tuple[str, ...], ...] = (("sanitiser",), ("sandbox",), ("header",), LAYERS)


async def scripts(folder: Path, mails: list[str]) -> int:
    """Print how many payloads run a script behind each layer, with every element touched; return how many did."""
    failures = 0
    for layers in ((), *ALONE):
        began = time.monotonic()
        ran: set[int] = set()
        navigated = touched = 0
        # A browser for a few thousand mails: each of them leaves windows and workers behind.
        for first in range(0, len(mails), 2000):
            async with Rig.opened(folder) as rig:
                found = await rig.open(mails[first : first + 2000], layers, touch=bool(layers))
            ran |= {first + number for number in found.executed}
            navigated += found.navigated
            touched += found.elements
        print(
            f"{' + '.join(layers) or 'nothing':30} {len(mails):6} {len(ran):9} {touched:8} {navigated:9} {time.monotonic() - began:8.0f} s",
            flush=True,
        )
        if layers:
            failures += len(ran) + navigated
            for number in sorted(ran)[:20]:
                print(f"    {mails[number]!r}")
    return failures


async def requests(folder: Path) -> int:
    """Print how many payloads make a request or a lookup behind each layer, untouched; return how many did that may not."""
    failures = 0
    for layers, images in (((), False), *((layers, False) for layers in ALONE), (LAYERS, True)):
        log = folder / "net.json"
        async with Rig.opened(folder, f"--log-net-log={log}") as rig:
            mails = [mail for _, mail in leaks(rig.internet.port)]
            found = await rig.open(mails, layers, images=images, touch=False)
        hosts = {request.host for request in found.requests}
        names = {name for name in names_in(log) if "leak-" in name}
        name = (" + ".join(layers) or "nothing") + (", images" if images else "")
        print(f"{name:38} {len(mails):6} {len(hosts):9} {len(names):8}", flush=True)
        if images:
            wrong = [
                each
                for each in found.requests
                if not each.secure or each.destination != "image" or {"Referer", "Cookie"} & each.headers.keys()
            ]
            failures += len(wrong)
            print(f"    of them not an image over https, or with a Referer or a cookie: {len(wrong)}")
        elif "header" in layers:
            failures += len(hosts | names) + found.navigated
    return failures


async def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="script/attacks", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one of N payloads")
    arguments = parser.parse_args()
    mails = list(payloads()[:: arguments.every])
    print(f"{len(payloads())} payloads, {len(collected())} of them from public lists; {len(mails)} are opened")
    with tempfile.TemporaryDirectory() as folder:
        print(f"\n{'scripts behind':30} {'mails':>6} {'executed':>9} {'touched':>8} {'navigated':>9}")
        failures = await scripts(Path(folder), mails)
        print(f"\n{'requests behind':38} {'mails':>6} {'requests':>9} {'lookups':>8}")
        failures += await requests(Path(folder))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
