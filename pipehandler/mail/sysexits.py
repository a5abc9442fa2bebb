"""The exit statuses of sysexits.h, and how pipe(8) treats each.

All but 0 (delivered), 71 and 75 (deferred) bounce the message: see pipe(8), DIAGNOSTICS.
"""

EX_OK = 0
EX_USAGE = 64
EX_DATAERR = 65
EX_NOINPUT = 66
EX_NOUSER = 67
EX_NOHOST = 68
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_OSERR = 71
EX_OSFILE = 72
EX_CANTCREAT = 73
EX_IOERR = 74
EX_TEMPFAIL = 75
EX_PROTOCOL = 76
EX_NOPERM = 77
EX_CONFIG = 78

DEFERRED = frozenset({EX_OSERR, EX_TEMPFAIL})
"""The two statuses after which Postfix keeps the message and retries."""

NAMES = {number: name for name, number in list(globals().items()) if name.startswith("EX_")}
"""The name of each status."""
