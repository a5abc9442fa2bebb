"""What a page says about the request before it, and why a request failed: sentences by their codes.

The code of a notice stands in the address after a redirect; what is none is not shown.
"""

from typing import NamedTuple

from .languages import mark, words

NOTICES = {
    "opened": mark("Your address is ready."),
    "extended": mark("The inbox lasts longer now."),
    "longest": mark("This inbox cannot last any longer."),
    "ended": mark("The inbox has ended."),
    "deleted": mark("The inbox and its mail have been deleted."),
    "removed": mark("Deleted."),
    "switched": mark("You are in another inbox now."),
    "added": mark("The inbox has been added to this browser."),
    "unshared": mark("The links that you shared no longer work."),
    "gone": mark("This inbox is no longer open to you."),
    "no_cookies": mark(
        "Your browser keeps no cookies of this site. Allow them first: the key to your inbox is in one."
    ),
    "not_found": mark("This message is not here any more."),
    "not_kept": mark("The content of this was not kept."),
    "bad_key": mark("This key opens no inbox. It may have been deleted, or the time has run out."),
    "bad_search": mark("This search is not understood."),
    "slow_search": mark("The search took too long. Try other words."),
    "name_refused": mark("This name cannot be chosen. Use the letters a to z, digits, dots and hyphens."),
    "name_taken": mark("This address belongs to somebody else, or did until recently. Choose another name."),
    "network_closed": mark("No inbox can be opened from your network."),
    "shares": mark("There are too many links for reading. Revoke them first."),
    "partial": mark("Some of the mail cannot be shown just now. Nothing is lost."),
    "owner": mark("You can read this inbox, but not change it."),
}


class Failure(NamedTuple):
    """A heading, and what happened or what to do."""

    heading: str
    text: str


_NOT_POSSIBLE = mark("This is not possible")
FAILURES = {
    "not_found": Failure(
        mark("There is nothing here"), mark("The address may be mistyped, or the message was deleted.")
    ),
    "forbidden": Failure(
        _NOT_POSSIBLE, mark("This form was sent by another site. Open the page again, and try once more.")
    ),
    "misdirected": Failure(_NOT_POSSIBLE, mark("This site has another name.")),
    "bad_request": Failure(_NOT_POSSIBLE, mark("The request cannot be understood.")),
    "not_public": Failure(_NOT_POSSIBLE, mark("This page shows the mail of those who have a key to it.")),
    "too_many": Failure(
        mark("Please wait a little"), mark("You have opened many inboxes, or many windows, in a short time.")
    ),
    "full": Failure(
        mark("No new address at the moment"),
        mark("Very many inboxes are open just now. Those that exist work as usual."),
    ),
    "unavailable": Failure(
        mark("The mail cannot be reached"), mark("Nothing is lost. Please try again in a few seconds.")
    ),
    "fault": Failure(mark("Something went wrong"), mark("This is our fault, and it was recorded. Please try again.")),
}


def notice_text(code: str, lang: str) -> str:
    """Return the sentence of a notice, "" for what is none."""
    return str(words(lang).gettext(NOTICES[code])) if code in NOTICES else ""


def failure_text(code: str, lang: str) -> Failure:
    """Return the heading and the text of a failure."""
    failure = FAILURES.get(code, FAILURES["bad_request"])
    return Failure(*(str(words(lang).gettext(text)) for text in failure))
