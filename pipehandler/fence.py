"""The fence: the outermost guard of every delivery.

pipe(8) bounces a message for most statuses, among them Python's own 1, 2 and 120. So the status is 75 until a better one is
known, everything that can fail is inside the fence, and it ends in os._exit: no exit hook, no flush, no other status.
One line goes to stdout, first and alone, because Postfix shows all output to the sender of the message.

A message is delivered by a resident worker (handover.py) or by this process, cold. Until that is decided, only modules that
are built into the interpreter are imported: imports are most of what a message costs.
"""

import _signal as signal  # type: ignore[import-not-found] # the module signal loads enum, a fourth of a start
import errno
import posix
import sys
import time

from pipehandler.handover import hand_over, option

TYPE_CHECKING = False  # typing itself is too costly for every delivery
if TYPE_CHECKING:
    from collections.abc import Callable

_ASKED = sys._xoptions.get("pipehandler_started")
"""The start of this delivery, if the hand-over client (handover.c) has asked the service already. A sender cannot set it."""

_STARTED = min(float(_ASKED), time.monotonic()) if _ASKED else time.monotonic()
_LAST_ALARM = 120  # seconds; until the deadline of the configuration is known

_AFTERWARDS = 2  # seconds for all that follows when the status is known; pipe(8) waits for the end of this process

# Three rows of the outcome table, and what tells them apart, for when the table cannot be imported; a test compares.
_FAULT = 75, "4.3.0 internal fault"
_MISCONFIGURED = 75, "4.3.5 mail system incorrectly configured"
_EXHAUSTED = 71, "4.3.0 mail system out of resources"
_EXHAUSTED_ERRORS = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_NO_REASON = "error return without exception set"


def deliver(argv: list[str]) -> None:
    """Deliver the message on fd 0 and leave with its status; does not return."""
    status, line = _FAULT
    after_reply: Callable[[], None] | None = None
    answer = 1
    try:
        # Death by signal defers, even if nothing below works as it should.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))  # the parent's mask is inherited
        signal.alarm(_LAST_ALARM)
        handed = None if _ASKED else hand_over(argv, _STARTED)
        if handed is not None:
            status, line = handed
        else:
            signal.alarm(_LAST_ALARM)
            answer = _take_stdout()  # first: site prints what is wrong with a .pth file
            _prepare()
            from pipehandler.ingress.pipe import run

            finished = run(argv, _STARTED)
            status, line, after_reply = finished.status, finished.line, finished.after_reply
    except BaseException as error:  # noqa: BLE001 # no other status may leave here
        status, line = _meaning(error)
        reason = error  # `error` is gone when the clause is left

        def after_reply() -> None:
            _log(line, status, reason, argv)

    try:
        # What follows changes no status, and delays none for long: the alarm ends it.
        signal.signal(signal.SIGALRM, lambda *_: posix._exit(status))
        signal.alarm(_AFTERWARDS)
        posix.write(answer, line.encode("ascii", "replace") + b"\n")
    except BaseException:  # noqa: BLE001, S110 # pipe(8) has gone; Postfix delivers the message again
        pass
    try:
        if after_reply is not None:
            after_reply()
    except BaseException:  # noqa: BLE001, S110 # a log that cannot be written changes no status
        pass
    posix._exit(status)


def _meaning(error: BaseException) -> tuple[int, str]:
    """The status and the line for what was raised outside `run`: here or by an import; perhaps nothing else can be imported."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in _EXHAUSTED_ERRORS:
        return _EXHAUSTED
    if isinstance(error, SystemError) and str(error) == _NO_REASON:
        return _EXHAUSTED
    return _MISCONFIGURED if isinstance(error, ModuleNotFoundError) else _FAULT


def _prepare() -> None:
    """Make a whole interpreter of one that was started with -S, for a delivery in this process."""
    import gc

    gc.disable()  # the process ends before there is garbage; a tenth of the time of the imports (measured)
    if sys.flags.no_site:
        import site

        del sys.path[0]  # what __main__.py put there
        site.main()
    posix.umask(0o077)


def _take_stdout() -> int:
    """Keep stdout for the one line, and point fd 1 and 2 (and a closed fd 0) at /dev/null; return its new descriptor."""
    import fcntl
    import os

    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    while null <= 2:  # a standard descriptor was closed, and would be given to the next file or socket
        null = os.dup(null)
    try:
        answer = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        answer = os.dup(null)
    os.dup2(null, 1, inheritable=False)
    if not os.isatty(2):
        os.dup2(null, 2, inheritable=False)
    return answer


def _log(line: str, status: int, error: BaseException, argv: list[str]) -> None:
    """Report to syslog what ended the delivery outside `run`: there may be no configuration, and no whole package."""
    import os
    import traceback

    from pipehandler.record import syslog

    outcome = {_EXHAUSTED[1]: "exhausted", _MISCONFIGURED[1]: "misconfigured"}.get(line, "fault")
    last = " ".join(" ".join(traceback.format_exception(error)[-2:]).split())
    text = f"outcome={outcome} status={status} code={line[:5]} queue_id={option(argv, 'queue-id')} reason={last!a}"
    if os.isatty(2):
        os.write(2, text.encode() + b"\n")
    syslog.send(text, failed=True)


def _use_utf8() -> None:
    """Start this program again with -X utf8 where the locale has another encoding: not all give the octets of argv back.

    For lines in master.cf that version 0.1.0 printed, and for `serve`.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    try:
        with open("/proc/self/cmdline", "rb") as file:
            interpreter, *words = file.read().split(b"\0")[:-1]
        posix.execv(sys.executable, [interpreter, b"-X", b"utf8", *words])
    except (OSError, MemoryError):
        pass  # most addresses are ASCII


def _is_call_for_help(arguments: list[str]) -> bool:
    """Whether a person asks for help. pipe(8) writes the message into a pipe, and must never get status 0 for it."""
    if arguments not in (["-h"], ["--help"]):
        return False
    try:
        return posix.fstat(0).st_mode & 0o170000 != 0o010000  # S_ISFIFO
    except OSError:
        return False


def main() -> None:
    """The console script `pipehandler`."""
    if sys.argv[1:2] == ["deliver"] or "serve" in sys.argv:
        _use_utf8()
    if sys.argv[1:2] == ["deliver"] and not _is_call_for_help(sys.argv[2:]):
        deliver(sys.argv[2:])
    from pipehandler.cli import cli

    cli(prog_name="pipehandler")
