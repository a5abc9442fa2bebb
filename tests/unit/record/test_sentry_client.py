"""What is given to sentry-sdk, in the child process that sends: nothing but what is listed."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import sentry_sdk
from pipehandler.record import sentry
from pipehandler.settings.config import Config, Sentry, Store

events = []
sentry_sdk.flush = lambda timeout: events.append(timeout)

class Transport(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope):
        events.append(envelope.get_event())
    def flush(self, *_, **__): pass
    def kill(self): pass

made = sentry_sdk.init
sentry_sdk.init = lambda *values, **options: made(*values, transport=Transport, **options)
secret = "secret"
try:
    raise ValueError(secret)
except ValueError as error:
    fault = error if sys.argv[1] == "fault" else None
config = Config(sentry=Sentry(dsn="http://k@127.0.0.1:1/1"), store=Store(mail_host="mx"))
sentry._send(config, "title", fault, {"outcome": "fault"})
client = sentry_sdk.get_client()
names = ("auto_session_tracking", "include_local_variables", "send_client_reports", "send_default_pii",
         "max_breadcrumbs", "default_integrations", "auto_enabling_integrations")
json.dump([events, {name: client.options[name] for name in names}, sorted(client.integrations)], sys.stdout)
"""


def sent(kind: str) -> tuple[list[object], dict[str, object], list[str]]:
    """What is sent, the options of the client, and its integrations."""
    pytest.importorskip("sentry_sdk")
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM, kind], capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def test_client_collects_nothing() -> None:
    """No variables, no crumbs of the log, no sessions, no reports of its own, no hooks into other libraries."""
    _, options, integrations = sent("message")
    assert integrations == []
    assert not any(options.values()), options


@pytest.mark.parametrize("kind", ["fault", "message"])
def test_event(kind: str) -> None:
    """Exactly these values; an exception only with its type and where it was raised."""
    (event, timeout), _, _ = sent(kind)
    assert timeout == 5.0
    assert isinstance(event, dict)
    listed = {
        "event_id",
        "timestamp",
        "platform",
        "level",
        "release",
        "logger",
        "server_name",
        "message",
        "fingerprint",
        "extra",
    }
    assert event.keys() - {"sdk", "exception"} == listed
    assert (event["platform"], event["level"], event["logger"], event["server_name"]) == (
        "python",
        "error",
        "pipehandler",
        "mx",
    )
    assert event["release"].startswith("pipehandler@")
    assert (event["message"], event["fingerprint"]) == ("title", ["title"])
    assert event["extra"]["outcome"] == "fault"
    assert event["extra"]["versions"].keys() == {"python", "mail-parser", "psycopg", "sentry-sdk"}
    assert event["extra"]["versions"]["python"] == sys.version.split()[0]
    assert ("exception" in event) == (kind == "fault")
    if kind == "fault":
        (exception,) = event["exception"]["values"]
        assert exception.keys() == {"type", "module", "stacktrace"}
        assert exception["type"] == "ValueError"
        (frame,) = exception["stacktrace"]["frames"]
        assert (frame["function"], frame["lineno"] > 0) == ("<module>", True)
        assert "vars" not in frame
        assert "'secret'" not in json.dumps(event)
