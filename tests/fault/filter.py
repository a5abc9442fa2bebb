"""Every exit status and signal with twenty outputs, through a real Postfix: with the status filter, none of them
bounces mail."""

from harness import account
from harness.exits import OUTPUTS, SIGNALS, End, Exits

from .ledger import Mode, Row, Scale

_SECONDS = 3600


def run(scale: Scale, mode: Mode) -> Row:
    """Let a program end with every status and signal, or a sample of them."""
    row = mode.row("filter")
    hows = [*map(str, range(1, 256)), *(f"s{number}" for number in SIGNALS)]
    if scale.short:
        hows = hows[::60]
    ends = [End(how, output) for how in hows for output in range(len(OUTPUTS))]
    with account.folder("pipehandler-mx-") as folder:
        exits = Exits(folder)
        exits.postfix.start()
        try:
            results = exits.results(ends, _SECONDS)
        finally:
            exits.postfix.abort()
    row.points = row.sent = len(ends)
    for end, (dsn, status, text) in results.items():
        if status != "deferred" or not dsn.startswith("4."):
            row.bounced += 1
            row.note(f"{end} became {dsn} {status}: {text[:100]}")
    return row
