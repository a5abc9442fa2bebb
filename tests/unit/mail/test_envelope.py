"""The envelope from argv, as pipe(8) writes it with postfix/master.cf.example."""

import os

import pytest

from pipehandler.mail.envelope import OPTIONS, Envelope, UsageError, from_argv


def envelope(*argv: str) -> Envelope:
    """The envelope from `argv`, to which a sender is added."""
    return from_argv(["--sender=a@example.org", *argv])


def test_all_options() -> None:
    """Each macro of pipe(8) arrives in the field of its name."""
    values = {
        "config": "/c.toml",
        "socket": "/s",
        "sender": "a@example.org",
        "queue-id": "4Xyz",
        "size": "123",
        "original-recipient": "alias@example.com",
        "client-address": "192.0.2.1",
        "client-hostname": "mx.example.org",
        "client-helo": "helo",
        "client-port": "2525",
        "client-protocol": "ESMTP",
        "sasl-username": "user",
    }
    assert set(values) == set(OPTIONS)
    read = from_argv([*(f"--{name}={value}" for name, value in values.items()), "--", "b@example.com"])
    assert read == Envelope(
        sender="a@example.org",
        recipients=("b@example.com",),
        original_recipients=("alias@example.com",),
        queue_id="4Xyz",
        size=123,
        client_address="192.0.2.1",
        client_hostname="mx.example.org",
        client_helo="helo",
        client_port=2525,
        client_protocol="ESMTP",
        sasl_username="user",
    )


def test_only_what_is_needed() -> None:
    """Sender and recipient are enough; the rest is unknown."""
    read = from_argv(["--sender=", "--", "b@example.com"])
    assert read == Envelope(sender="", recipients=("b@example.com",))


@pytest.mark.parametrize(
    "sender", ["", "-f@example.org", "--", "--size=1", "we ird@example.org", "a=b@example.org", "=?"]
)
def test_sender_is_taken_as_it_is(sender: str) -> None:
    """Any reverse-path is kept unchanged, including the null sender (RFC 5321 4.5.5) and one with a dash."""
    assert from_argv([f"--sender={sender}", "--", "b@example.com"]).sender == sender


@pytest.mark.parametrize(
    "recipient", ["--", "-x@example.com", "--sender=b@example.com", "we ird@example.com", '"@example.com']
)
def test_recipient_is_taken_as_it_is(recipient: str) -> None:
    """Everything after the first bare -- is a recipient."""
    assert envelope("--", recipient, recipient).recipients == (recipient, recipient)


@pytest.mark.parametrize(
    ("recipient", "kept"),
    [
        ("User@EXAMPLE.Com", "User@example.com"),
        ("A@B@EXAMPLE.COM", "A@B@example.com"),
        ("Postmaster", "Postmaster"),
        ("Ü@BÜCHER.example", "Ü@bücher.example"),
    ],
)
def test_domain_in_lower_case(recipient: str, kept: str) -> None:
    """RFC 5321 2.4: the domain is compared without regard to case; the local part belongs to its owner and is kept
    unchanged."""
    assert envelope("--", recipient).recipients == (kept,)


def test_octets_that_are_no_utf8_stay_distinct() -> None:
    """Two recipients that differ in an octet that is not UTF-8 remain different, as text that PostgreSQL can store."""
    recipients = [os.fsdecode(octet + b"@example.com") for octet in (b"\xe4", b"\xf6", b"\xc3\xa4")]
    assert envelope("--", *recipients).recipients == ("\\xe4@example.com", "\\xf6@example.com", "ä@example.com")


def test_original_recipients_in_order() -> None:
    """One --original-recipient= for each recipient, in the same order."""
    read = envelope("--original-recipient=x", "--original-recipient=", "--", "b@example.com", "c@example.com")
    assert read.original_recipients == ("x", "")


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("IPv6:2001:db8::1", "2001:db8::1"),
        ("IPv6:::1", "::1"),
        ("IPV6:::1", "::1"),
        ("IPv6:::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("IPv6:", None),
        ("IPv6:192.0.2", None),
        ("IPv6:fe80::1%eth0", None),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("", None),
        ("unknown", None),
        ("fe80::1%eth0", None),
        ("192.0.2", None),
        ("192.0.2.1/8", None),
    ],
)
def test_client_address(address: str, kept: str | None) -> None:
    """The client's address is what PostgreSQL's inet accepts, or unknown: it never costs the message."""
    assert envelope(f"--client-address={address}", "--", "b@example.com").client_address == kept


@pytest.mark.parametrize("option", ["size", "client-port"])
@pytest.mark.parametrize(("value", "number"), [("", None), ("unknown", None), ("0", 0), ("52428", 52_428)])
def test_number(option: str, value: str, number: int | None) -> None:
    """A number is a number, and unknown where pipe(8) has none."""
    assert getattr(envelope(f"--{option}={value}", "--", "b"), option.replace("-", "_")) == number


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("client-port", "65536"),
        ("client-port", "2147483648"),
        ("client-port", "9" * 19),
        ("client-port", "9" * 5000),
        ("size", str(2**63)),
        ("size", "9" * 19),
        ("size", "9" * 5000),
    ],
)
def test_number_out_of_range(option: str, value: str) -> None:
    """A number that the database cannot hold is left out, and the message is delivered."""
    read = envelope(f"--{option}={value}", "--", "b@example.com")
    assert getattr(read, option.replace("-", "_")) is None
    assert read.left_out == (option,)


@pytest.mark.parametrize("number", [0, 1, 65_535])
def test_number_in_range(number: int) -> None:
    """Every valid port, and a size of up to 63 bits."""
    read = envelope(f"--client-port={number}", "--size=9223372036854775807", "--", "b")
    assert (read.client_port, read.size, read.left_out) == (number, 2**63 - 1, ())


@pytest.mark.parametrize(
    ("argv", "reported"),
    [
        ([], "no recipients"),
        (["--sender=a"], "no recipients"),
        (["--sender=a", "--"], "0 recipients"),
        (["--sender=a", "--", ""], "1 recipients, 1 of them empty"),
        (["--sender=a", "--", "b", ""], "2 recipients, 1 of them empty"),
        (["--", "b"], "--sender= is missing"),
        (["--sender", "a", "--", "b"], "'--sender'"),
        (["-sender=a", "--", "b"], "'-sender=a'"),
        (["sender=a", "--", "b"], "'sender=a'"),
        (["--sender=a", "b"], "'b'"),
        (["--sender=a", "--nexthop=x", "--", "b"], "'--nexthop=x'"),
        (["--sender=a", "--queue_id=x", "--", "b"], "'--queue_id=x'"),
        (["--sender=a", "--sender=b", "--", "b"], "--sender given 2 times"),
        (["--sender=a", "b@example.com"], "argument with an address"),
        (["--sender=a", "--size=-1", "--", "b"], "--size='-1'"),
        (["--sender=a", "--size=1e3", "--", "b"], "--size='1e3'"),
        (["--sender=a", "--size=٣", "--", "b"], "--size='٣'"),
        (
            ["--sender=a", "--original-recipient=x", "--", "b", "c"],
            "--original-recipient given 1 times for 2 recipients",
        ),
    ],
)
def test_usage(argv: list[str], reported: str) -> None:
    """Arguments that master.cf should not contain are refused, and the error names them."""
    with pytest.raises(UsageError) as refused:
        from_argv(argv)
    assert reported in str(refused.value)
