"""Error reporting to Sentry: the type of an internal fault and where it happened, never the content of a message.

An event consists only of data known to be harmless: the stack without values, the outcome, sizes and versions. A separate
process loads sentry-sdk and sends it. That process is ended when the time of the delivery is up, and cannot change a status.
"""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..mail.outcome import FAULT, QUARANTINED, Result, described
from ..runtime.child import detach
from ..settings.config import Config
from .journal import Journal

if TYPE_CHECKING:
    from sentry_sdk.types import Event

_TIMEOUT = 5.0  # seconds
_FRAME = ("abs_path", "filename", "function", "module", "lineno", "pre_context", "context_line", "post_context")


def report(config: Config, journal: Journal, result: Result, left: float, **facts: object) -> None:
    """Report the result of a delivery, if it is a fault that was not reported lately, within `left` seconds.

    facts: further values of the event; no content and no addresses. A failure to report is ignored.
    """
    settings = config.sentry
    is_reportable = result.outcome == FAULT or (result.outcome == QUARANTINED and settings.quarantined)
    if not settings.dsn or not is_reportable or left <= 0:
        return
    title = f"{result.outcome.name}: {described(result.fault) if result.fault else result.reason}"
    if journal.should_report(title, settings.min_interval):
        facts |= {
            "outcome": result.outcome.name,
            "status": result.outcome.status,
            "sqlstate": result.sqlstate or None,
        }
        with suppress(OSError):
            detach(lambda: _send(config, title, result.fault, facts), min(left, _TIMEOUT))


def dsn_problem(dsn: str) -> str:
    """Return why sentry-sdk refuses a DSN; "" if it accepts it. Needs the extra `sentry`."""
    from sentry_sdk.utils import BadDsn, Dsn

    try:
        Dsn(dsn)
    except (BadDsn, ValueError) as error:
        return str(error)
    return ""


def _send(config: Config, title: str, fault: BaseException | None, facts: dict[str, object]) -> None:
    import sentry_sdk

    def harmless(event: "Event", _: Any) -> "Event":
        """Return a new event with only what is listed here, because the text of an exception may quote a message."""
        filtered: Event = {"event_id": event["event_id"], "timestamp": event["timestamp"], "platform": "python"}
        filtered.update({"level": "error", "release": f"pipehandler@{__version__}", "logger": "pipehandler"})
        filtered["server_name"] = config.mail_host
        filtered["message"] = title
        filtered["fingerprint"] = [title]
        filtered["extra"] = {**facts, "versions": _versions()}
        if "exception" in event:
            exceptions = event["exception"]["values"]
            filtered["exception"] = {"values": [_without_values(exception) for exception in exceptions]}
        return filtered

    sentry_sdk.init(
        config.sentry.dsn,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        include_local_variables=False,
        send_client_reports=False,
        send_default_pii=False,
        max_breadcrumbs=0,
        before_send=harmless,
    )
    if fault:
        sentry_sdk.capture_exception(fault)
    else:
        sentry_sdk.capture_message(title)
    sentry_sdk.flush(_TIMEOUT)


def _without_values(exception: dict[str, Any]) -> dict[str, Any]:
    frames = (exception.get("stacktrace") or {}).get("frames", [])
    return {
        "type": exception.get("type"),
        "module": exception.get("module"),
        "stacktrace": {"frames": [{key: frame.get(key) for key in _FRAME} for frame in frames]},
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("mail-parser", "psycopg", "sentry-sdk")
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}
