"""The filters of deliveries."""

import re
from dataclasses import fields

import pytest

from pipehandler.store.filters import Filters


@pytest.mark.parametrize("name", [field.name for field in fields(Filters)])
@pytest.mark.parametrize("text", ["a", "a@b.example"])
def test_whether_messages_are_read(name: str, text: str) -> None:
    """A filter is about messages exactly if its condition names a column of them."""
    filters = Filters(**{name: text})  # type: ignore[arg-type] # any value will do
    assert filters.of_messages == bool(re.search(r"\bm\.", filters.condition()[0]))
