"""How parsing grows with hostile messages: `PYTHONPATH=tests python tests/property/growth.py [KIND...]`, from the
repository's root.

Each generator of harness/hostile.py is parsed at 1, 10 and 50 MB, each in a process of its own. It takes some minutes.
The exit status is 1 if 50 MB cost more than ten times what 10 MB cost: linear is five times.
"""

import sys

from harness.hostile import HOSTILE, cost

MEGABYTE = 1_000_000
FACTOR = 10
NOISE = 0.2  # seconds below which a ratio is meaningless


def sized(raw: bytes, size: int) -> bytes:
    """`raw` truncated to `size` octets, or extended to it by repeating its second half."""
    half = raw[len(raw) // 2 :]
    return (raw + half * ((size - len(raw)) // len(half) + 1))[:size]


def main(kinds: list[str]) -> int:
    """Print the seconds and megabytes of each kind."""
    worst = 0
    for kind in kinds or HOSTILE:
        raw = HOSTILE[kind]()
        costs = [cost(sized(raw, size * MEGABYTE)) for size in (1, 10, 50)]
        linear = costs[2][0] <= FACTOR * max(costs[1][0], NOISE)
        worst |= not linear
        figures = "  ".join(f"{seconds:6.2f} s {megabytes:5.0f} MB" for seconds, megabytes in costs)
        print(f"{kind:42} {figures}{'' if linear else '  NOT LINEAR'}", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
