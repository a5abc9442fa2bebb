"""A language that no person speaks: English that is accented and 40 % longer, to find what is not translated or does not fit."""

import re

_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ACCENTED = "äƀçđéƒğĥïĵķļɱñöþɋŕšţûṽŵẋýžÄɃÇĐÉƑĞĤÏĴĶĻṀÑÖÞɊŔŠŢÛṼŴẊÝŽ"
_TABLE = str.maketrans(_PLAIN, _ACCENTED)
_KEPT = re.compile(r"(%\(\w+\)[sd]|%%|</?\w[^>]*>|&\w+;|&#\d+;)")
_LONGER = 0.4


class PseudoWords:
    """Takes the place of a language's words."""

    def gettext(self, message: str) -> str:
        """Return the sentence in the pseudo language; what is put into it by name, and markup, stay."""
        return pseudo(message)

    def ngettext(self, singular: str, plural: str, count: int) -> str:
        """Return the form for the number, as English chooses it."""
        return pseudo(singular if count == 1 else plural)

    def pgettext(self, _meaning: str, message: str) -> str:
        """Return the sentence; its meaning decides nothing here."""
        return pseudo(message)

    def npgettext(self, _meaning: str, singular: str, plural: str, count: int) -> str:
        """Return the form for the number."""
        return self.ngettext(singular, plural, count)


def pseudo(message: str) -> str:
    """Accent every letter, and add words until the sentence is 40 % longer."""
    kept = _KEPT.split(message)
    accented = "".join(each if index % 2 else each.translate(_TABLE) for index, each in enumerate(kept))
    return accented + " ļöñğ"[: 5 * bool(message)] * max(1, round(len(message) * _LONGER / 5))


def untranslated(text: str) -> list[str]:
    """Return the words of a text that did not come from the pseudo language: those with a plain letter."""
    return re.findall(r"[^\W\d_]*[a-zA-Z][^\W\d_]*", text)
