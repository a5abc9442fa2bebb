"""Telling Sentry what nobody foresaw: the kind of a fault and where it happened, never what a message says.

An event is put together from what is known to be harmless: the stack without values, the outcome, sizes and versions. It is
sent by a process of its own, which loads sentry-sdk only then and is ended with the time of the delivery, so that nothing
that happens to it changes a status.
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

_LONGEST = 5.0  # seconds
_FRAME = ("abs_path", "filename", "function", "module", "lineno", "pre_context", "context_line", "post_context")


def tell(config: Config, journal: Journal, result: Result, left: float, **facts: object) -> None:
    """Tell how a delivery ended, if that is worth telling and was not told lately, in at most the `left` seconds.

    `facts`: what else to say; no content and no addresses. Does not raise for its own failure.
    """
    settings = config.sentry
    wanted = result.outcome == FAULT or (result.outcome == QUARANTINED and settings.quarantined)
    if not settings.dsn or not wanted or left <= 0:
        return
    what = f"{result.outcome.name}: {described(result.fault) if result.fault else result.reason}"
    if journal.due(what, settings.min_interval):
        facts |= {
            "outcome": result.outcome.name,
            "status": result.outcome.status,
            "sqlstate": result.sqlstate or None,
        }
        with suppress(OSError):
            detach(lambda: _send(config, what, result.fault, facts), min(left, _LONGEST))


def _send(config: Config, what: str, fault: BaseException | None, facts: dict[str, object]) -> None:
    import sentry_sdk

    def harmless(event: "Event", _: Any) -> "Event":
        """Nothing but what is listed here leaves the host: the texts of exceptions, for one, may quote a message."""
        kept: Event = {"event_id": event["event_id"], "timestamp": event["timestamp"], "platform": "python"}
        kept.update({"level": "error", "release": f"pipehandler@{__version__}", "logger": "pipehandler"})
        kept["server_name"] = config.mail_host
        kept["message"] = what
        kept["fingerprint"] = [what]
        kept["extra"] = {**facts, "versions": _versions()}
        if "exception" in event:
            kept["exception"] = {"values": [_without_values(each) for each in event["exception"]["values"]]}
        return kept

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
        sentry_sdk.capture_message(what)
    sentry_sdk.flush(_LONGEST)


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
