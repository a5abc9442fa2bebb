"""Reports: the content of bounces, complaints and disposition notifications, however they are written."""

from typing import Any

import pytest

from pipehandler.mail.parsed import Attachment
from pipehandler.parse import report
from pipehandler.parse.defect import Notebook
from pipehandler.parse.message import parse

STATUS = "message/delivery-status"
ORIGINAL = b"Received: x\nMESSAGE-ID:\n <one@example.org>\nSubject: s\n\nMessage-ID: <body@example.org>\n"


def read(content: bytes, kind: str = STATUS, *others: tuple[str, bytes]) -> dict[str, Any] | None:
    """The report of a message with these parts."""
    parts = [(kind, content), *others]
    return report.read([Attachment(str(n), kind, octets) for n, (kind, octets) in enumerate(parts, 1)], Notebook())


def test_delivery_status() -> None:
    """RFC 3464: the fields of the message, and of each recipient."""
    content = (
        b"Reporting-MTA: dns; mx.example.org\r\nOriginal-Envelope-Id: QQ314159\r\n"
        b"Arrival-Date: Tue, 3 Mar 2026 10:00:00 +0900\r\nX-Postfix-Queue-ID: 1\r\n\r\n"
        b"Original-Recipient: rfc822;Alias@example.net\r\nFinal-Recipient: rfc822; bob@example.net\r\n"
        b"Action: Failed (permanent)\r\nStatus: 5.1.1 (unknown user)\r\nRemote-MTA: dns; mail.example.net\r\n"
        b"Diagnostic-Code: smtp; 550 5.1.1 <bob@example.net>:\r\n    no such user\r\n\r\n"
        b"Final-Recipient: LOCAL; carol\r\nAction: delayed\r\nStatus: 4.4.1\r\n"
        b"Last-Attempt-Date: Tue, 3 Mar 2026 11:00:00 +0900\r\nWill-Retry-Until: never\r\n"
    )
    assert read(content, STATUS, ("message/rfc822", ORIGINAL)) == {
        "type": "delivery-status",
        "reporting_mta": "mx.example.org",
        "original_envelope_id": "QQ314159",
        "arrival_date": "2026-03-03T01:00:00+00:00",
        "recipients": [
            {
                "original_recipient": "Alias@example.net",
                "final_recipient": "bob@example.net",
                "action": "failed",
                "status": "5.1.1",
                "remote_mta": "mail.example.net",
                "diagnostic_code": "smtp; 550 5.1.1 <bob@example.net>: no such user",
            },
            {
                "final_recipient": "carol",
                "action": "delayed",
                "status": "4.4.1",
                "last_attempt_date": "2026-03-03T02:00:00+00:00",
            },
        ],
        "original_message_id": "one@example.org",
    }


@pytest.mark.parametrize(
    ("content", "recipients"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"nonsense\n\nmore: nonsense\n", []),
        # All in one block, and misplaced blank lines.
        (b"Reporting-MTA: x\nFinal-Recipient: a\nAction: failed\nFinal-Recipient: b\nAction: relayed\n",
         [("a", "failed"), ("b", "relayed")]),
        (b"\n\nReporting-MTA: x\n\n\nFinal-Recipient: rfc822;a\nAction: failed\n\n \n\nFinal-Recipient: b\n",
         [("a", "failed"), ("b", None)]),
        # RFC 6533 3: an address in UTF-8, raw or escaped.
        (b"A: b\n\nFinal-Recipient: utf-8; j\\x{F6}rg@example.org\n", [("jörg@example.org", None)]),
        ("A: b\n\nFinal-Recipient: utf-8; jörg@example.org\n".encode(), [("jörg@example.org", None)]),
        (b"A: b\n\nFinal-Recipient: utf-8; \\x{D800}\\x{110000}\\x{0}\n", [("\ufffd\\x{110000}\\x{0}", None)]),
        (b"A: b\n\nFinal-Recipient: rfc822; <a@b>\nAction:\n", [("a@b", None)]),
        (b"A: b\n\nFinal-Recipient: rfc822; Ann <a@b>\n", [("a@b", None)]),
        (b"A: b\n\nFinal-Recipient: Ann <a@b>\n", [("a@b", None)]),
        (b"A: b\n\nFinal-Recipient: rfc822;a@b (Ann)\n", [("a@b", None)]),
    ],
)  # fmt: skip
def test_recipients(content: bytes, recipients: list[tuple[str, str | None]]) -> None:
    """However the blocks are separated."""
    found = read(content)
    assert found
    assert [(each["final_recipient"], each.get("action")) for each in found["recipients"]] == recipients


def test_complaint() -> None:
    """RFC 5965: fields that occur once, and those that may be repeated."""
    content = (
        b"Feedback-Type: Abuse\nUser-Agent: SomeGenerator/1.0\nVersion: 1\n"
        b"Original-Mail-From: <somespammer@example.net>\nOriginal-Rcpt-To: <user@example.com>\n"
        b"Original-Rcpt-To: <other@example.com>\nReceived-Date: Thu, 8 Mar 2005 14:00:00 EDT\nSource-IP: 192.0.2.2\n"
        b"Authentication-Results: mail.example.com;\n spf=fail\nReported-Domain: example.net\n"
        b"Reported-Uri: http://example.net/earn_money.html\nIncidents: 3\nRemoval-Recipient: ignored\n"
    )
    assert read(content, "message/feedback-report", ("text/rfc822-headers", ORIGINAL)) == {
        "type": "feedback-report",
        "feedback_type": "abuse",
        "user_agent": "SomeGenerator/1.0",
        "version": "1",
        "original_mail_from": "somespammer@example.net",
        "original_rcpt_to": ["user@example.com", "other@example.com"],
        "received_date": "2005-03-08T18:00:00+00:00",
        "source_ip": "192.0.2.2",
        "authentication_results": ["mail.example.com; spf=fail"],
        "reported_domain": ["example.net"],
        "reported_uri": ["http://example.net/earn_money.html"],
        "incidents": "3",
        "original_message_id": "one@example.org",
    }


def test_disposition() -> None:
    """RFC 8098: the message is named by the report itself, before the enclosed one."""
    content = (
        b"Reporting-UA: pc.example.com; Foomail 97.1\nFinal-Recipient: rfc822;Louisa@example.com\n"
        b"Original-Message-ID: <199509192301@example.org>\n"
        b"Disposition: manual-action/MDN-sent-manually; displayed\n"
    )
    assert read(content, "message/disposition-notification", ("message/rfc822", ORIGINAL)) == {
        "type": "disposition-notification",
        "reporting_ua": "pc.example.com; Foomail 97.1",
        "final_recipient": "Louisa@example.com",
        "disposition": "manual-action/MDN-sent-manually; displayed",
        "original_message_id": "199509192301@example.org",
    }


def test_no_report() -> None:
    """Mail without such a part has no report, whatever else it encloses."""
    assert read(b"Final-Recipient: a\n", "text/x") is None
    assert parse(b"Content-Type: message/rfc822\n\n" + ORIGINAL).report is None


def test_report_inside_of_an_enclosed_message() -> None:
    """A bounce forwarded as an attachment is not a report of this message."""
    bounce = b"Content-Type: message/delivery-status\n\nA: b\n\nFinal-Recipient: a\n"
    assert parse(bounce).report
    assert parse(b"Content-Type: message/rfc822\n\n" + bounce).report is None


def test_bounds() -> None:
    """However large a report is, the stored part is bounded, and a defect records that the rest was left out."""
    many = b"A: b\n\n" + b"Final-Recipient: a\n\n" * 12_000
    long = b"Content-Type: message/delivery-status\n\nReporting-MTA: " + b"x" * 1_000_000
    several = b"Reported-URI: x:y\n" * 5_000
    parsed = parse(b"Content-Type: message/delivery-status\n\n" + many)
    assert parsed.report
    assert len(parsed.report["recipients"]) == 1_000
    assert [defect.code for defect in parsed.defects] == ["report-left-out"]
    parsed = parse(long)
    assert parsed.report
    assert len(parsed.report["reporting_mta"]) <= 2_000
    assert [defect.code for defect in parsed.defects] == ["report-left-out"]
    found = read(several, "message/feedback-report")
    assert found
    assert len(found["reported_uri"]) == 100
