"""No word of a page is outside the catalogues: each page of the inbox, in a language that no person speaks."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from harness.page import SETTINGS, templates
from harness.page_text import PageText
from harness.pseudo_locale import PseudoWords, untranslated
from markupsafe import Markup

from pipehandler.settings.config import Web
from pipehandler.store.inboxes import Inbox, InboxAttachment, InboxMessage, InboxRow
from pipehandler.web import languages
from pipehandler.web.articles import Article
from pipehandler.web.codes import ConfirmationLink, OneTimeCode
from pipehandler.web.languages import LANGUAGES
from pipehandler.web.links import link
from pipehandler.web.mail_pages import AttachmentView
from pipehandler.web.mail_view import MailView
from pipehandler.web.safe_html import SafeHtml
from pipehandler.web.static_pages import NAMES

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
VALUE = "1234"
"""What stands for the visitor's mail: no letter of it can be taken for a word of ours."""

PRIVATE = SETTINGS._replace(public=False)


def inbox(kind: str = "owner", state: str = "active", **others: object) -> Inbox:
    values: dict[str, object] = {
        "lease": 1,
        "address": VALUE,
        "label": None,
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=10),
        "grace_until": NOW + timedelta(hours=1),
        "life_until": NOW + timedelta(days=1),
        "kind": kind,
        "deliveries": 2,
        "octets": 2,
        "max_messages": 1000,
        "max_octets": 1000,
        "cursor": "1",
        "state": state,
    }
    return Inbox(**(values | others))  # type: ignore[arg-type]


def row(delivery: int, **others: object) -> InboxRow:
    values: dict[str, object] = {
        "delivery": delivery,
        "cursor": "1",
        "subject": VALUE,
        "sender_name": VALUE,
        "sender_address": VALUE,
        "received_at": NOW,
        "size": 1,
        "attachments": 2,
        "state": "parsed",
        "preview": VALUE,
        "recipient": VALUE,
    }
    return InboxRow(**(values | others))  # type: ignore[arg-type]


def message(**others: object) -> InboxMessage:
    mailboxes = [{"name": VALUE, "address": VALUE, "group": ""}]
    values: dict[str, object] = dict.fromkeys(InboxMessage.__dataclass_fields__)
    values |= {
        "delivery": 1,
        "recipient": VALUE,
        "sender": VALUE,
        "subject": VALUE,
        **dict.fromkeys(("from_list", "sender_list", "reply_to_list", "to_list", "cc_list"), mailboxes),
        "date": NOW,
        "received_at": NOW,
        "size": 1,
        "state": "parsed",
        "header": [[VALUE, VALUE]],
        "message_id": VALUE,
        "list_unsubscribe": [VALUE],
        "authentication": {"dmarc": "pass"},
        "defects": [],
        "is_cut": True,
        "has_raw": True,
        "attachments": (InboxAttachment(1, "2", None, "1/1", None, None, 1, True, {}, None, None),),
        "previous": 2,
        "next": 3,
    }
    return InboxMessage(**(values | others))  # type: ignore[arg-type]


LINKS = (link(VALUE, "https://1.2"), link("https://3.4", "https://1.2"))
HTML = SafeHtml("", "", 2, 2, VALUE, LINKS)
ATTACHMENTS = [
    AttachmentView(1, "", "1/1", 1, True, True, VALUE),
    AttachmentView(2, VALUE, "1/1", 1, False, False, ""),
]


def listed(**others: object) -> Mapping[str, object]:
    return {
        "inbox": inbox(),
        "rows": (row(1), row(2, subject=None, sender_name=None, sender_address="", state="failed", attachments=0)),
        "older": "2",
        "before": "1",
        "cursor": "1",
        "wanted": VALUE,
    } | others


def opened(of: InboxMessage, /, **others: object) -> Mapping[str, object]:
    view = {"safe": HTML, "costly": False, "text": VALUE, "links": LINKS, "found": OneTimeCode(VALUE)}
    view |= {name: others.pop(name) for name in list(others) if name in view}
    return {
        **listed(wanted="", before=None),
        "view": MailView(of, **view),  # type: ignore[arg-type]
        "images": False,
        "shown": "html",
        "attachments": ATTACHMENTS,
        "further": ATTACHMENTS,
        "lines": [VALUE] if view["text"] else [],
        "text_is_cut": True,
        "source": VALUE,
        "source_is_cut": True,
    } | others


HOME = {"problem": "", "no_cookies": VALUE, "name": "", "domain": "", "alternates": {"en": "/en/"}, "indexed": True}
KEY = {"link": VALUE, "qr": "", "shared": VALUE, "shared_qr": "", "inbox": inbox()}
STATIC = {
    "tail": "1",
    "here": "",
    "alternates": {"en": "/en/1"},
    "articles": [Article("1", "en", VALUE, VALUE, NOW.date(), Markup(VALUE))],
    "article": Article("1", "en", VALUE, VALUE, NOW.date(), Markup(VALUE)),
}
PAGES: dict[str, tuple[str, Mapping[str, object], Web]] = {
    "home": ("home.html", HOME | {"inbox": inbox(), "inboxes": [inbox(state="expired")]}, SETTINGS),
    "home of a team": ("home.html", HOME, PRIVATE),
    "home with a problem": ("home.html", HOME | {"problem": VALUE}, SETTINGS),
    "inbox": ("inbox.html", listed(inboxes=[inbox(address=None), inbox(state="expired")]), SETTINGS),
    "inbox without mail": ("inbox.html", listed(rows=(), wanted="", before=None, older=None), SETTINGS),
    "search without a result": ("inbox.html", listed(rows=()), SETTINGS),
    "search that was given up": ("inbox.html", listed(rows=(), notice=VALUE), SETTINGS),
    "inbox that is full": ("inbox.html", listed(inbox=inbox(max_messages=2)), SETTINGS),
    "inbox that can come back": ("inbox.html", listed(inbox=inbox(state="expired")), SETTINGS),
    "inbox that cannot": ("inbox.html", listed(inbox=inbox(state="expired", life_until=NOW)), SETTINGS),
    "shared inbox": ("inbox.html", listed(inbox=inbox("shared")), SETTINGS),
    "all mail": ("inbox.html", listed(inbox=inbox("viewer", address=None, expires_at=None)), PRIVATE),
    "message": ("message.html", opened(message()), SETTINGS),
    "message with images": ("message.html", opened(message(authentication={"dmarc": "fail"}), images=True), SETTINGS),
    "message to confirm": ("message.html", opened(message(), found=ConfirmationLink(LINKS[0])), SETTINGS),
    "message as text": ("message.html", opened(message(authentication={}), shown="text"), SETTINGS),
    "message without text": ("message.html", opened(message(subject=None), shown="text", text=""), SETTINGS),
    "header": ("message.html", opened(message(from_list=[], sender=""), shown="headers"), SETTINGS),
    "source": ("message.html", opened(message(), shown="raw"), SETTINGS),
    "costly message": ("message.html", opened(message(), safe=None, costly=True, shown="text"), SETTINGS),
    "failed message": ("message.html", opened(message(state="failed", error=VALUE), safe=None, shown="raw"), SETTINGS),
    "print": (
        "print.html",
        {
            "view": MailView(message(subject=None), None, False, VALUE, (), None),
            "attachments": ["", VALUE],
            "body": None,
        },
        SETTINGS,
    ),
    "key": ("key.html", KEY, SETTINGS),
    "open": ("open.html", {"candidate": None, "key": "", "problem": VALUE}, SETTINGS),
    "open an inbox": ("open.html", {"candidate": inbox(), "key": VALUE, "problem": ""}, SETTINGS),
    "error": ("error.html", {"status": 429, "heading": VALUE, "text": VALUE, "seconds": 60}, SETTINGS),
    "abuse": ("abuse.html", {}, SETTINGS),
    "abuse without contact": ("abuse.html", {}, SETTINGS._replace(contact="")),
    "manifest": ("manifest.webmanifest", {}, SETTINGS),
    **{name: (f"static/{name}.html", STATIC, SETTINGS) for name in (*NAMES, "blog", "article")},
    "contact without data": ("static/contact.html", STATIC, Web()),
}
"""Each page in each of its states: its template, its context, the settings of the site."""

DATA = {
    *re.findall(r"[a-zA-Z]+", " ".join(language.name for language in LANGUAGES.values())),
    *("Español", "Français", "Türkçe", "Tiếng", "Việt", "Português"),
    *("example", "com", "org", "hello", "Example", "Sons", "Street", "pipehandler"),
    *("SPF", "DKIM", "DMARC", "ARC", "pass", "fail", "https"),
    *("j", "k", "o", "u", "c"),  # the keys
    *(
        "minute",
        "minutes",
        "hours",
        "day",
        "days",
        "byte",
        "bytes",
        "Nov",
        "November",
        "AM",
        "PM",
        "UTC",
        "B",
    ),  # Babel's
}
"""What is the same in every language, or comes from elsewhere."""


def rendered(name: str, direction: str = "ltr") -> str:
    template, own, settings = PAGES[name]
    made = templates(settings)
    context = made.common("en") | {"now": NOW, "here": "/", "direction": direction}
    return made.render(template, context | dict(own))


def test_each_template_is_among_the_pages() -> None:
    environment = templates().environment
    names = {name for name in environment.list_templates() if not name.startswith(".")}
    assert names - {template for template, _, _ in PAGES.values()} == {"layout.html", "parts.html"}


@pytest.mark.parametrize("name", PAGES)
def test_no_word_of_a_page_is_outside_the_catalogue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still plain English was never translated. The pseudo language is also 40 % longer than English."""
    monkeypatch.setattr(languages, "words", lambda _code: PseudoWords())
    text = rendered(name)
    if name == "manifest":
        assert '"short_name": "\\u00cf' in text
        return
    found = [each for each in PageText(text).texts if set(untranslated(each)) - DATA]
    assert found == []


def test_a_search_that_was_given_up_says_so() -> None:
    """It does not say that there is no such message."""
    assert f'<p class="found">{VALUE} <a' in rendered("search that was given up")
    assert "No message has" in rendered("search without a result")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_mirrored_with_its_language(name: str) -> None:
    text = rendered(name, "rtl")
    if name == "manifest":
        assert '"dir": "rtl"' in text
    else:
        assert PageText(text).elements[0] == ("html", {"lang": "en", "dir": "rtl"})


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_page_can_be_shown_in_every_language(code: str) -> None:
    for template, own, settings in PAGES.values():
        made = templates(settings)
        text = made.render(template, made.common(code) | {"now": NOW, "here": "/"} | dict(own))
        assert f'"{code}"' in text
        assert "%(" not in text
