"""header, address, encoded_word: the meaning of fields."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from harness.cpu import cost
from hypothesis import given, settings
from hypothesis import strategies as st
from mailparser.utils import get_addresses

from pipehandler.mail.header_fields import unfolded
from pipehandler.mail.parsed import Address
from pipehandler.parse import address
from pipehandler.parse.defect import Notebook
from pipehandler.parse.encoded_word import decode_words
from pipehandler.parse.header import Header
from pipehandler.parse.limits import Limits
from pipehandler.parse.part import Field


def header(**fields: str | bytes) -> tuple[Header, Notebook]:
    """A header of these fields (reply_to stands for Reply-To), and where its defects go."""
    notebook = Notebook()
    entries = [
        Field(name.replace("_", "-").title(), unfolded(body if isinstance(body, bytes) else body.encode()))
        for name, body in fields.items()
    ]
    return Header(entries, Limits(), (), notebook), notebook


def mailboxes(body: str) -> list[tuple[str, str, str]]:
    """What a To field holds: (name, address, group)."""
    return [(each.name, each.address, each.group) for each in header(to=body)[0].addresses("to")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a@b.example", [("", "a@b.example", "")]),
        ("A B <a@b.example>, c@d.example", [("A B", "a@b.example", ""), ("", "c@d.example", "")]),
        ('"B, A" <a@b.example>', [("B, A", "a@b.example", "")]),
        ("=?utf-8?Q?J=C3=B6rg?= <j@b.example>", [("Jörg", "j@b.example", "")]),
        ("=?utf-8?B?SsO2cmcs?= =?utf-8?B?IEs=?= <j@b.example>", [("Jörg, K", "j@b.example", "")]),
        ("=?iso-2022-jp?B?GyRCOzNFRBsoQg==?= <y@b.example>", [("山田", "y@b.example", "")]),
        ("=?utf-8?Q?=C3?= =?utf-8?Q?=A4?= <j@b.example>", [("ä", "j@b.example", "")]),
        ('"=?utf-8?Q?J=C3=B6rg?=" <j@b.example>', [("Jörg", "j@b.example", "")]),
        ("a@b.example (Al)", [("Al", "a@b.example", "")]),
        ("Pete(A nice chap) <pete(x)@b.example(y)>", [("Pete", "pete@b.example", "")]),
        ('"a@b.example" <c@d.example>', [("a@b.example", "c@d.example", "")]),
        ("a@b.example <a@b.example>", [("a@b.example", "a@b.example", "")]),
        ("MAILER-DAEMON", [("", "MAILER-DAEMON", "")]),
        ("Mail Delivery System", [("Mail Delivery System", "", "")]),
        ("Name,(<a@b.example>)", [("Name", "a@b.example", "")]),
        ("Doe, John <j@b.example>", [("Doe, John", "j@b.example", "")]),
        ('"x"<a@b,com>', [("x", "a@b,com", "")]),
        ('<"a@b.example">', [("", "a@b.example", "")]),
        ("<<a@b.example>>", [("", "a@b.example", "")]),
        ('"no end <a@b.example>', [("no end", "a@b.example", "")]),
        ("no end <a@b.example, c@d.example", [("no end", "a@b.example", ""), ("", "c@d.example", "")]),
        ("B <b@x> C <c@x>", [("B", "b@x", ""), ("C", "c@x", "")]),
        ("a@b.example; c@d.example", [("", "a@b.example", ""), ("", "c@d.example", "")]),
        ("Re: x <a@b.example>", [("Re: x", "a@b.example", "")]),
        ("G: A <a@b.example>, c@d.example;", [("A", "a@b.example", "G"), ("", "c@d.example", "G")]),
        ("=?utf-8?Q?=C3=A4?=: a@b.example;, e@f.example", [("", "a@b.example", "ä"), ("", "e@f.example", "")]),
        ("undisclosed-recipients:;", []),
        ("undisclosed-recipients: ;", []),
        ("M <@a.example,@b.example:m@c.example>", [("M", "m@c.example", "")]),
        ('"john doe"@b.example', [("", '"john doe"@b.example', "")]),
        ("user@[IPv6:2001:db8::1]", [("", "user@[IPv6:2001:db8::1]", "")]),
        ("john . doe @ b . example, x", [("", "john.doe@b.example", ""), ("", "x", "")]),
        ("jürgen@exämple.example", [("", "jürgen@exämple.example", "")]),
        ("B <b@x>\n c@x, d@x", [("B", "b@x", ""), ("", "c@x", ""), ("", "d@x", "")]),
        ("B <b@x> c@x d@x", [("B", "b@x", ""), ("", "c@x", ""), ("", "d@x", "")]),
        ("a@x b@x", [("", "a@x", ""), ("", "b@x", "")]),
        ("B <b@x> via a list", [("B via a list", "b@x", "")]),
        ("Doe, John, Mr <j@x>", [("", "Doe", ""), ("", "John", ""), ("Mr", "j@x", "")]),
        ('"B" <><b@x>', [("B", "b@x", "")]),
        ("B < > <b@x>, c@x", [("B", "b@x", ""), ("", "c@x", "")]),
        ("B <y@<b@x>", [("B", "b@x", "")]),
        ("B <y <z <b@x>, c@x", [("B", "b@x", ""), ("", "c@x", "")]),
        ("The News (<n@x>)", [("The News", "n@x", "")]),
        ("The News (n@x)", [("The News", "n@x", "")]),
        ("root (n@x)", [("n@x", "root", "")]),
        ('"n@x", <b@x>', [("n@x", "b@x", "")]),
        ('"n@x", b@x', [("", "n@x", ""), ("", "b@x", "")]),
        ('"n@x"', [("", "n@x", "")]),
        ("=?utf-8?B?SsO2cmcgPGpAeD4=?=", [("Jörg", "j@x", "")]),
        ("=?utf-8?Q?a=40x=2C?= =?utf-8?Q?_b=40x?=", [("", "a@x", ""), ("", "b@x", "")]),
        ("=?utf-8?Q?J=C3=B6rg_=3Cj?=@x.example", [("Jörg", "j@x.example", "")]),
        ("<=?utf-8?Q?j?=@x.example>", [("", "j@x.example", "")]),
        ("J <=?utf-8?Q?b=40bank.example?=@x.example>", [("J", '"b@bank.example"@x.example', "")]),
        ("<a=?utf-8?Q?=40bank.example?=@x.example>", [("", "a=?utf-8?Q?=40bank.example?=@x.example", "")]),
        ("J <j@=?utf-8?Q?x.example?=>", [("J", "j@=?utf-8?Q?x.example?=", "")]),
        ("=?utf-8?Q?ceo=40bank.example?= <j@x.example>", [("ceo@bank.example", "j@x.example", "")]),
        ("=?utf-8?Q?J_(Sales)?= <j@x>, b@x", [("J (Sales)", "j@x", ""), ("", "b@x", "")]),
        ("=?utf-8?q?J=C3=B6rg,_K,_=5BShop=5D?= <j@x>, b@x", [("Jörg, K, [Shop]", "j@x", ""), ("", "b@x", "")]),
        ("=?iso-8859-1?Q?J=F6rg_<a@x>?=<j@x>,=?utf-8?q?b?=<b@x>", [("Jörg <a@x>", "j@x", ""), ("b", "b@x", "")]),
        ('=?utf-8?Q?Re:_"x";_y?= <j@x>, b@x', [("Re: x; y", "j@x", ""), ("", "b@x", "")]),
        ("=?utf-8?Q?J@x?= <j@x>, =?utf-8?Q?a(b?= <b@x>", [("J@x", "j@x", ""), ("a(b", "b@x", "")]),
        ("=?iso-8859-1?Q?=22J=F6rg,_K=22_=3Cj?=@x.example>", [("Jörg, K", "j@x.example", "")]),
        ("=?utf-8?Q?j@x?=, b@x", [("", "j@x", ""), ("", "b@x", "")]),
        (
            "=?utf-8?Q?J_=3Cj=40x=3E?=, =?utf-8?Q?b=40x?=, B <b@x>",
            [("J", "j@x", ""), ("", "b@x", ""), ("B", "b@x", "")],
        ),
        ("G: =?utf-8?Q?J_?= =?utf-8?Q?=3Cj=40x=3E?=, b@x;", [("J", "j@x", "G"), ("", "b@x", "G")]),
        ("=?utf-8?Q?J=C3=B6rg?=, K <j@x>", [("Jörg, K", "j@x", "")]),
        ('"=?utf-8?Q?J=C3=B6rg_=3Cj=40x=3E?="', [("Jörg", "j@x", "")]),
        ("B b@x C D c@x, d@x", [("B", "b@x", ""), ("C D", "c@x", ""), ("", "d@x", "")]),
        ("B b@x and C", [("B and C", "b@x", "")]),
        ("<>", []),
        (",,", []),
        # Outlook, Exchange, Lotus Notes, and the archives of lists.
        ("'a@x'; 'B' <'b@x'>", [("", "a@x", ""), ("'B'", "b@x", "")]),
        ("'a@x'", [("", "a@x", "")]),
        ("o'neil@x", [("", "o'neil@x", "")]),
        (
            "B [a@x], [SMTP:b@x], C <smtp:c@x>, mailto:d@x",
            [("B", "a@x", ""), ("", "b@x", ""), ("C", "c@x", ""), ("", "d@x", "")],
        ),
        ("B [x] <b@x>", [("B [x]", "b@x", "")]),
        ("<Undisclosed-Recipient:;>, b@x", [("", "b@x", "")]),
        ("b@x <>", [("", "b@x", "")]),
        ("b at x.example (B)", [("B", "b@x.example", "")]),
        ("B at x, c@x", [("B at x", "", ""), ("", "c@x", "")]),
        ("B <Shop> <b@x>", [("B <Shop>", "b@x", "")]),
        ("J <=?utf-8?Q?j@x.example?=>", [("J", "j@x.example", "")]),
        ("<=?utf-8?B?SsO2cmcgPGpAeD4=?=>", [("Jörg", "j@x", "")]),
        ("=?utf-8?Q?J=C3=B6rg (Shop)?= <j@x>, b@x", [("Jörg (Shop)", "j@x", ""), ("", "b@x", "")]),
        ("=?utf-8?Q?K, J=C3=B6rg?= <j@x>, b@x", [("K, Jörg", "j@x", ""), ("", "b@x", "")]),
    ],
)
def test_address_lists(body: str, expected: list[tuple[str, str, str]]) -> None:
    """RFC 5322 3.4 as written, and as found in mail."""
    assert mailboxes(body) == expected


@pytest.mark.parametrize(
    "body",
    ["a@b.example", "A B <a@b.example>", '"B, A" <a@b.example>, c@d.example', "=?utf-8?Q?J=C3=B6rg?= <j@b.example>",
     '"Q \\"q\\"" <q@b.example>', "A. B. <a@b.example>", "jürgen@exämple.example", '"a b"@c.example'],
)  # fmt: skip
def test_mail_parser_and_the_lenient_reading_agree(body: str) -> None:
    """If a list conforms to RFC 5322, both readings agree."""
    assert header(to=body)[0].addresses("to") == address.parse(body, 100).addresses


WORDS = st.sampled_from(
    ["a", "Bob", "J.", "o'n", "{z}", "=", "=?", "?=", "=?utf-8?Q?J=C3=B6rg?=", "=?UTF-8?B?w6Q=?=", "=?utf-8?q?a=40b?=",
     "=?us-ascii?q?x?=", "=?utf-8?b??=", "=?utf-8?Q?=22q=22?="]
)  # fmt: skip
QUOTED = st.sampled_from(
    ['"a b"', '"a, b"', '"a.b"', '"a@b"', '"a\\"b"', '"=?utf-8?Q?x?="', '" a"', '"a  b"', '""', '" "', '"a"b', '"a:b"']
)
MAILBOXES = st.sampled_from(
    [
        "a@b",
        "x.y@c.example",
        "A@B.C",
        "a..b@c",
        "a@b.",
        "@b",
        "a@[1.2.3.4]",
        "a=b@c.de",
        "a@b@c",
        "root",
        "=?utf-8?Q?a?=@b",
    ]
)
NAMED = st.builds(
    "{}{}<{}>{}".format,
    st.lists(WORDS, max_size=3).map(" ".join) | QUOTED,
    st.sampled_from(["", " ", "  ", "\t"]),
    MAILBOXES,
    st.sampled_from(["", " ", " x"]),
)
LISTS = st.builds(
    str.join, st.sampled_from([",", ", ", " , ", ",,"]), st.lists(MAILBOXES | NAMED, min_size=1, max_size=3)
)


@settings(max_examples=1000, deadline=None)
@given(body=LISTS)
def test_plain_lists_are_read_as_mail_parser_reads_them(body: str) -> None:
    """A list that is not passed to mail-parser gives what mail-parser would have returned, and no other defects."""
    read, notebook = header(to=body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipehandler.parse.plain_address.read", lambda body: None)
        strict, expected = header(to=body)
        assert read.addresses("to") == strict.addresses("to")
    assert notebook.close() == expected.close()


def test_the_plainest_lists_need_no_mail_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it is a sixth of a cold delivery, and most mail has lists of the plainest form."""
    monkeypatch.setattr("pipehandler.parse.strict_address.read", None)
    body = 'a@x.example, A B <b@x.example>, "C, D." <c@x.example>,<d@x.example>, =?utf-8?Q?J=C3=B6rg?= <e@x.example>'
    read, notebook = header(to=body)
    assert [mailbox.name for mailbox in read.addresses("to")] == ["", "A B", "C, D.", "", "Jörg"]
    assert notebook.close() == []


def test_sender_and_the_other_address_fields() -> None:
    """Each field is read by itself."""
    read, _ = header(sender="S <s@x.example>", reply_to="r@x.example", cc="c@x.example", bcc="b@x.example")
    assert read.addresses("sender") == [Address("S", "s@x.example")]
    assert [read.addresses(name)[0].address for name in ("reply-to", "cc", "bcc")] == [
        "r@x.example", "c@x.example", "b@x.example",
    ]  # fmt: skip
    assert read.addresses("from") == []


@pytest.mark.parametrize(
    ("body", "expected", "offset", "defects"),
    [
        ("Tue, 14 Mar 2023 09:26:53 +0545", datetime(2023, 3, 14, 3, 41, 53, tzinfo=UTC), 345, []),
        ("14 Mar 2023 09:26 GMT (x)", datetime(2023, 3, 14, 9, 26, tzinfo=UTC), 0, []),
        ("Tue, 14 Mar 2023 09:26:53 -0000", datetime(2023, 3, 14, 9, 26, 53, tzinfo=UTC), None, []),
        ("Tue, 14 Mar 2023 09:26:53", datetime(2023, 3, 14, 9, 26, 53, tzinfo=UTC), None, ["date-guessed"]),
        ("Tue, 14 Mar 95 9:26:53 EST", datetime(1995, 3, 14, 14, 26, 53, tzinfo=UTC), -300, ["date-guessed"]),
        ("Mon, 14 Mar 2023 09:26:53 +0000", datetime(2023, 3, 14, 9, 26, 53, tzinfo=UTC), 0, ["date-guessed"]),
        ("Sat, 31 Dec 2016 23:59:60 +0000", datetime(2017, 1, 1, tzinfo=UTC), 0, []),
        ("Tue, 45 Mar 2023 09:26:53 +0100", None, None, ["date-invalid"]),
        ("Tue, 14 Mar 9999 09:26:53 +0100", None, None, ["date-invalid"]),
        ("Tue, 14 Mar 0102 09:26:53 +0100", datetime(2002, 3, 14, 8, 26, 53, tzinfo=UTC), 60, ["date-guessed"]),
        ("Tue, 14 Mar 2023 09:26:53 -1600", datetime(2023, 3, 15, 1, 26, 53, tzinfo=UTC), -960, []),
        (
            "Fri, 10 Mar 2023 09:26:53 -2400",
            datetime(2023, 3, 11, 9, 26, 53, tzinfo=UTC),
            -1440,
            ["date-zone-implausible"],
        ),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None, None, ["date-invalid"]),
        ("soon", None, None, ["date-invalid"]),
        ("(" * 90_000, None, None, ["date-invalid"]),
    ],
)
def test_dates(body: str, expected: datetime | None, offset: int | None, defects: list[str]) -> None:
    """The instant, and the sender's zone; nothing if it is nonsense."""
    read, notebook = header(date=body)
    assert read.date() == (expected, offset)
    assert [defect.code for defect in notebook.close()] == defects


def test_date_keeps_the_zone() -> None:
    """The date is in the zone that the sender named."""
    date, _ = header(date="Tue, 14 Mar 2023 09:26:53 +0545")[0].date()
    assert date is not None
    assert date.tzinfo == timezone(timedelta(hours=5, minutes=45))


@pytest.mark.parametrize(
    ("body", "text", "sound"),
    [
        ("plain", "plain", True),
        ("=?utf-8?Q?a_b=20c?=", "a b c", True),
        ("=?utf-8?B?w6Q=?= =?utf-8?B?w7Y=?= x", "äö x", True),
        ("a =?utf-8?Q?b?= c", "a b c", True),
        ("a=?utf-8?Q?b?=c", "abc", True),
        ("=?utf-8*de?Q?=C3=A4?=", "ä", True),
        ("=?utf-8?B?5pel5pys6A==?= =?utf-8?B?qp4=?=", "日本語", True),
        ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?= =?ISO-2022-JP?Q?=1B$B8l=1B(B?=", "日本語", True),
        ("=?utf-8?Q?a?b?=", "a?b", True),
        ("=?gb2312?B?1fI=?=", "镇", True),
        ("=?utf-8?B?YQ?=", "a", True),
        ("=?utf-8?B?YQ?= =?utf-8?B?Yg?=", "ab", True),  # whole words without padding
        ("=?utf-8?B?w6Q?= =?utf-8?B?w7Y?=", "äö", True),
        ("=?utf-8?B?w6?= =?utf-8?B?TDtg==?=", "äö", True),  # one base64, cut anywhere
        ("=?utf-8?B?w6TDt?= =?utf-8?B?sOf?=", "äöß", True),
        ("=?utf-8?Q?=C3=?= =?utf-8?Q?A4?= b", "ä b", True),
        ("=?utf-8?Q?=C3=A?= =?utf-8?Q?4?=", "ä", True),
        ("=?utf-8?Q?a=0D=0AB:_c?=", "a B: c", False),
        ("=?utf-8?Q?=1B[2Ja=C2=9Bb?=", "[2Jab", False),
        ("=??Q?=E9?=", "é", False),
        ("=?utf-8?B?YWJj*Q?=", "abc", False),
        ("=?x-none?Q?=E9?=", "é", False),
        ("=?iso-8859-1?Q?=C3=A4?=", "ä", False),
        ("=?utf-8?Q?no end", "=?utf-8?Q?no end", False),
        ("=?punycode?Q?bcher-kva?=", "bcher-kva", False),
        ("what =? that", "what =? that", False),
        ("", "", True),
    ],
)
def test_encoded_words(body: str, text: str, sound: bool) -> None:
    """RFC 2047, even where it is violated."""
    decoded, wrong = decode_words(body)
    assert decoded == text
    assert bool(wrong) is not sound


def test_raw_octets_do_not_vanish() -> None:
    """8-bit octets in a header become text, and unless they are UTF-8 a defect records how."""
    read, notebook = header(
        subject="Frösche und Kröten hüpfen".encode("cp1252"), to="Jörg <j@x.example>".encode("cp1252")
    )
    assert read.unstructured("subject") == "Frösche und Kröten hüpfen"
    assert read.addresses("to") == [Address("Jörg", "j@x.example")]
    assert [defect.code for defect in notebook.close()] == ["charset-guessed"] * 2
    read, notebook = header(subject="Frösche 日本")
    assert (read.unstructured("subject"), notebook.close()) == ("Frösche 日本", [])


def test_broken_words_cost_no_other_field() -> None:
    """mail-parser fails on such words; they are not passed to it, and the date is read strictly."""
    for body in ("=?utf-8?B?A?= <a@x.example>", "=?utf-8?Q?=ZZ?= <a@x.example>", "=?x-none?B?w6Q?= <a@x.example>"):
        read, notebook = header(to=body, date="Tue, 14 Mar 2023 09:26:53 +0100")
        assert read.date() == (datetime(2023, 3, 14, 8, 26, 53, tzinfo=UTC), 60)
        assert read.addresses("to")[0].address == "a@x.example"
        assert {defect.code for defect in notebook.close()} <= {"encoded-word-broken"}


def test_other_fields_survive_mail_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """If mail-parser fails on one address field, that field is read leniently, and the others as usual."""

    def fragile(body: str, **options: Any) -> Any:
        if body.startswith("A."):
            raise ValueError
        return get_addresses(body, **options)

    monkeypatch.setattr("pipehandler.parse.strict_address.get_addresses", fragile)
    read, notebook = header(to="A. <a@x.example>", cc="B. <b@x.example>")
    assert read.addresses("to") == [Address("A.", "a@x.example")]
    assert read.addresses("cc") == [Address("B.", "b@x.example")]
    assert [(defect.code, defect.where) for defect in notebook.close()] == [("decoder-failed", "to")]


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (b"folded\n\twith a tab", "folded with a tab"),
        (b"folded \n \t twice\n\n\tx", "folded twice x"),
        (b"two  blanks", "two  blanks"),
        (b"\x1b[31mred\x07", "[31mred"),
        ("a\u2028b\u0085c".encode(), "a b c"),
    ],
)
def test_subject_is_one_line(body: bytes, subject: str) -> None:
    """RFC 5322 3.2.2: folding means one space; RFC 2047 5: no effect on the display but the text."""
    assert header(subject=body)[0].unstructured("subject") == subject


def test_first_of_repeated_fields_counts() -> None:
    """RFC 5322 3.6: a field that may occur once."""
    notebook = Notebook()
    read = Header([Field("Subject", b" 1"), Field("SUBJECT", b" 2")], Limits(), (), notebook)
    assert read.unstructured("subject") == "1"
    assert read.fields == [("Subject", "1"), ("SUBJECT", "2")]
    assert [defect.code for defect in notebook.close()] == ["field-repeated"]
    blank = [Field("Subject", b""), Field("Subject", b"=?utf-8?Q?_?= =?utf-8?Q??="), Field("Subject", b"3")]
    assert Header(blank, Limits(), (), Notebook()).unstructured("subject") == "3"
    assert Header(blank[:2], Limits(), (), Notebook()).unstructured("subject") == ""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Example Bahn, Reisen, <n@x>", [("Example Bahn, Reisen", "n@x")]),
        ("Doe, John, Mr <j@x>", [("Doe, John, Mr", "j@x")]),
        ('"Prize@shop.example", <s@x>', [("Prize@shop.example", "s@x")]),
        ('"Prize@shop.example", Service <s@x>', [("Prize@shop.example, Service", "s@x")]),
        ("=?utf-8?Q?ceo@bank.example?=, <s@x>", [("ceo@bank.example", "s@x")]),
        ("=?utf-8?Q?ceo=40bank.example?=, S <s@x>", [("ceo@bank.example, S", "s@x")]),
        ("=?utf-8?Q?J_<j@x>?=", [("J", "j@x")]),
        ("A <a@x>, B <b@x>", [("A", "a@x"), ("B", "b@x")]),
        ("a@x, B <b@x>", [("", "a@x"), ("B", "b@x")]),
        ("Smith &amp; Sons <s@x>", [("Smith &amp; Sons", "s@x")]),
        ("a@x; B <b@x>", [("", "a@x"), ("B", "b@x")]),
        ('"bank@x"; <s@x>', [("bank@x;", "s@x")]),
        ("=?utf-8?Q?bank@x?=; B <s@x>", [("bank@x; B", "s@x")]),
        ("[bank@x] s@x", [("[bank@x]", "s@x")]),
        ("[bank@x] S <s@x>", [("[bank@x] S", "s@x")]),
        ("A <a@x>; B <b@x>", [("A", "a@x"), ("B", "b@x")]),
    ],
)
def test_commas_in_the_name_of_one(body: str, expected: list[tuple[str, str]]) -> None:
    """In From, Sender and Reply-To a comma more likely belongs to a name than to a list."""
    read = header(From=body)[0]
    assert [(each.name, each.address) for each in read.addresses("from")] == expected


def test_destinations_are_one_list() -> None:
    """RFC 5322 4.5.3: To, Cc and Bcc may occur several times, and empty; of others the first with content counts."""
    notebook = Notebook()
    fields = [("To", b""), ("To", b"A <a@x>"), ("to", b"b@x, c@x"), ("From", b" "), ("From", b"d@x"), ("From", b"e@x"),
              ("Subject", b""), ("Subject", b"real")]  # fmt: skip
    read = Header([Field(name, body) for name, body in fields], Limits(addresses=2), (), notebook)
    assert [each.address for each in read.addresses("to")] == ["a@x", "b@x"]
    assert [each.address for each in read.addresses("from")] == ["d@x"]
    assert read.unstructured("subject") == "real"
    codes = {defect.code for defect in notebook.close()}
    assert codes >= {"field-repeated", "addresses-left-out"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("=?utf-8?q?=3Ca=40x?= =?utf-8?q?=2Eexample=3E?= =?utf-8?q?_=3Cb=40x=3E?=", ["a@x.example", "b@x"]),
        ('Your message of "Thu, 26 Nov 2026 09:00:00 +0100"', []),
        ("Your mail to bob@x.example of Monday", []),
        ("none", []),
        ("a@x, b@x", ["a@x", "b@x"]),
        ("a@x (from Bob)", ["a@x"]),
        ("<a(1)@x>", ["a(1)@x"]),
        ("=?utf-8?q?no end", []),
    ],
)
def test_ids_and_phrases(body: str, expected: list[str]) -> None:
    """RFC 5322 4.5.4: words that are not identifiers are ignored; encoded ones are decoded."""
    assert header(references=body)[0].message_ids("references") == expected


def test_a_fold_is_a_space() -> None:
    """RFC 5322 3.2.2, whatever the fold was made with; header keeps what was sent."""
    read = header(subject="one\n\ttwo =?utf-8?q?a?=\r\n\t=?utf-8?q?b?=")[0]
    assert read.unstructured("subject") == "one two ab"
    assert read.fields[0][1] == "one\ttwo =?utf-8?q?a?=\t=?utf-8?q?b?="


def test_message_ids() -> None:
    """RFC 5322 3.6.4: without angle brackets and folds; without brackets in the field the word with an @."""
    read, _ = header(references="<a@x>\n\t<b @x>,<c@x> junk", in_reply_to="Your mail <d@x>", message_id="e@x", x="")
    assert read.message_ids("references") == ["a@x", "b@x", "c@x"]
    assert read.message_ids("in-reply-to") == ["d@x"]
    assert read.message_ids("message-id") == ["e@x"]
    assert read.message_ids("x") == []


def test_mailbox_in_a_phrase() -> None:
    """The address of the writer is no identifier, though it is in angle brackets: MH writes both."""
    read, _ = header(in_reply_to='Message from Bob <b@x> of "Thu, 26 Nov 2026 09:00:00 +0100." <d@x>')
    assert read.message_ids("in-reply-to") == ["d@x"]
    assert header(in_reply_to="<d@x> from Bob <b@x> of Monday")[0].message_ids("in-reply-to")[0] == "d@x"


def test_encoded_date() -> None:
    """RFC 2047 5 forbids it; the instant is clear."""
    read, notebook = header(date="=?utf-8?Q?Thu,_26_Nov_2026_09:00:00_+0100?=")
    assert read.date() == (datetime.fromisoformat("2026-11-26T09:00:00+01:00"), 60)
    assert [defect.code for defect in notebook.close()] == ["date-guessed"]


def test_list_id() -> None:
    """RFC 2919: the identifier without its description."""
    assert header(list_id='"The <list>" <dev.lists.example>')[0].list_id() == "dev.lists.example"
    assert header(list_id="=?utf-8?Q?Dev_=3Cdev.lists.example=3E?=")[0].list_id() == "dev.lists.example"
    assert header(list_id="dev.lists.example")[0].list_id() == "dev.lists.example"
    assert header()[0].list_id() is None


@pytest.mark.parametrize(
    "body",
    ["=?utf-8?q?a" * 9_000, "=?utf-8?q?a?= " * 7_000, "=?utf-8?q?a?= =?koi8-r?b?YQ==?= " * 3_000,
     "=?punycode?q?" + "a" * 90_000 + "?=", "=?" * 49_000, '"' * 98_000, '"\\' * 49_000, "<" * 98_000, "(" * 98_000,
     "()" * 49_000, "a@b," * 24_000, "a " * 49_000, ":;" * 49_000, ",;" * 49_000, "a:" * 49_000 + ";", "<a@b>" * 19_000,
     "(a@b)" * 19_000, "x," * 49_000 + "<a@b>", "<@" + "@a," * 33_000, '"a@"' * 20_000, "[" * 98_000, " ." * 40_000 + "@",
     "@" * 98_000, "<a@b> " * 16_000, "(" + "a" * 98_000 + ")", "a <a" + " " * 98_000 + "b>", "<@" + " " * 98_000 + "x>",
     "<" + "@" * 98_000 + ">", "<a" * 49_000, "<>" * 49_000, "=?u?q?a?=@x," * 8_000, '"a@b",' * 16_000, "<a@b> c@d " * 9_000,
     "=?u?q?" + "=3C" * 30_000 + "?=@x", "a@b " * 24_000, "(a@b) " * 16_000, "x (<a@b>)," * 9_000,
     "a b@x " * 16_000, "=?u?q?a@x?=," * 8_000, "=?u?q?a@x?= " * 8_000, "=?u?q?" + "a@x," * 24_000 + "?=", "=?u?q?a@x,"  * 9_000],
)  # fmt: skip
def test_no_field_is_costly(body: str) -> None:
    """A field as long as Postfix lets through is read at little cost, whatever its content."""

    def read() -> None:
        fields, _ = header(subject=body, to=body, date=body, references=body, list_id=body)
        fields.unstructured("subject"), fields.addresses("to"), fields.date()
        fields.message_ids("references"), fields.list_id()

    assert cost(read) < 40


def test_long_lists_are_cut() -> None:
    """No more mailboxes than the limit, with a defect for the rest."""
    notebook = Notebook()
    read = Header([Field("To", b"a@b," * 50)], Limits(addresses=10), (), notebook)
    assert len(read.addresses("to")) == 10
    assert "addresses-left-out" in [defect.code for defect in notebook.close()]
