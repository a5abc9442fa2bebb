"""date: the instant that a Date field names, in any form, and nothing if it is ambiguous."""

import time
from datetime import datetime

import pytest

from pipehandler.parse import date


@pytest.mark.parametrize(
    ("body", "instant", "offset"),
    [
        # RFC 5322 3.3 and 4.3.
        ("Thu, 26 Nov 2026 09:00:00 +0545", "2026-11-26T03:15:00", 345),
        ("26 Nov 2026 09:00 GMT", "2026-11-26T09:00:00", 0),
        ("Thu, 26 Nov 2026 09:00:00 -0000", "2026-11-26T09:00:00", None),
        ("Thu, 26 Nov 126 09:00:00 +0100", "2026-11-26T08:00:00", 60),
        ("Thu, 14 Mar 0102 09:26:53 +0100", "2002-03-14T08:26:53", 60),
        ("26 Nov 49 09:00 EST", "2049-11-26T14:00:00", -300),
        ("26 Nov 50 09:00 EST", "1950-11-26T14:00:00", -300),
        ("Sat, 31 Dec 2016 23:59:60 +0000", "2017-01-01T00:00:00", 0),
        ("Tue, 14 Mar 2023 09:26:53 A", "2023-03-14T09:26:53", None),
        ("Tue, 3 Mar 2026 10:00:00 UTC (x (y))", "2026-03-03T10:00:00", 0),
        ("Thu, 26 Nov 2026 09:00:00 (EDT) -0400", "2026-11-26T13:00:00", -240),
        # Zones that RFC 5322 allows and no place uses.
        ("Tue, 03 Mar 2026 10:00:00 -1600", "2026-03-04T02:00:00", -960),
        ("Tue, 14 Mar 2023 09:26:53 +9900", "2023-03-10T06:26:53", 5940),
        ("Tue, 14 Mar 2023 09:26:53 -9959", "2023-03-18T13:25:53", -5999),
        ("Tue, 14 Mar 2023 09:26:53 -9999", "2023-03-14T09:26:53", None),
        # Zones in other forms.
        ("Thu, 26 Nov 2026 09:00:00 GMT+0900", "2026-11-26T00:00:00", 540),
        ("Thu, 26 Nov 2026 09:00:00 UTC+01:00", "2026-11-26T08:00:00", 60),
        ("Thu, 26 Nov 2026 09:00:00 +01:00", "2026-11-26T08:00:00", 60),
        ("Thu, 26 Nov 2026 09:00:00 +900", "2026-11-26T00:00:00", 540),
        ("Thu, 26 Nov 2026 09:00:00 GMT-5", "2026-11-26T14:00:00", -300),
        ("Thu, 26 Nov 2026 09:00:00+0100", "2026-11-26T08:00:00", 60),
        ("26 November 2026 09:00 CEST", "2026-11-26T07:00:00", 120),
        ("Thu Nov 26 2026 09:00:00 GMT+0100 (CET)", "2026-11-26T08:00:00", 60),
        ("Thu, 26 Nov 2026 09:00:00 BST +0100", "2026-11-26T08:00:00", 60),
        ("Thu, 26 Nov 2026 09:00:00 NPT+05:45", "2026-11-26T03:15:00", 345),
        ("Thu, 26 Nov 2026 09:00:00 EST+5", "2026-11-26T14:00:00", -300),
        # Zones at the end, apart from the time.
        ("Thu Nov 26 09:00:00 2026 +0100", "2026-11-26T08:00:00", 60),
        ("Thu Nov 26 09:00:00 2026 GMT-08:00", "2026-11-26T17:00:00", -480),
        ("Thu Nov 26 09:00:00 2026 -0000", "2026-11-26T09:00:00", None),
        ("09:00 26 Nov 2026 +0100", "2026-11-26T08:00:00", 60),
        ("9:00 AM, November 26, 2026 +01:00", "2026-11-26T08:00:00", 60),
        ("09:00 26-Nov-2026", "2026-11-26T09:00:00", None),
        ("09:00 26-11-2026", "2026-11-26T09:00:00", None),
        ("09:00:00 2026-11-26", "2026-11-26T09:00:00", None),
        # Hours in two halves.
        ("Thu, 26 Nov 2026 9:00:00 PM +0100", "2026-11-26T20:00:00", 60),
        ("Tue, 03 Mar 2026 06:30:00 p.m. -0500", "2026-03-03T23:30:00", -300),
        ("Thu, 26 Nov 2026 12:05:00 AM +0100", "2026-11-25T23:05:00", 60),
        ("Thu, 26 Nov 2026 12:05PM", "2026-11-26T12:05:00", None),
        ("Thu, 26 Nov 2026 13:05 PM +0000", "2026-11-26T13:05:00", 0),
        # ISO 8601, RFC 3339.
        ("2026-11-26T09:00:00+01:00", "2026-11-26T08:00:00", 60),
        ("2026-03-03 18:30:00 +0100", "2026-03-03T17:30:00", 60),
        ("2026-11-26T09:00:00.123456Z", "2026-11-26T09:00:00", 0),
        ("20261126T090000Z", "2026-11-26T09:00:00", 0),
        ("2026/11/26 09:00 -0800", "2026-11-26T17:00:00", -480),
        # Other orders and other marks.
        ("Thu, 26 Nov 2026 09:00:00.123 +0100", "2026-11-26T08:00:00", 60),
        ("Thu, 26 Nov 2026 09.00.00 +0100", "2026-11-26T08:00:00", 60),
        ("26-Nov-2026 09:00:00 +0100", "2026-11-26T08:00:00", 60),
        ("Tue Mar 14 09:26:53 PDT 2023", "2023-03-14T16:26:53", -420),
        ("Tue Mar 14 09:26:53 2023", "2023-03-14T09:26:53", None),
        ("Thursday, November 26th, 2026 at 9:00 PM", "2026-11-26T21:00:00", None),
        ("26/11/2026 09:00", "2026-11-26T09:00:00", None),
        ("11/26/2026 09:00", "2026-11-26T09:00:00", None),
        ("09:00 - 26 Nov 2026", "2026-11-26T09:00:00", None),
    ],
)
def test_read(body: str, instant: str, offset: int | None) -> None:
    """A clear instant is read, whatever its form."""
    found = date.read(body)
    assert found is not None
    assert found[:2] == (datetime.fromisoformat(instant + "+00:00"), offset)


@pytest.mark.parametrize(
    ("body", "exact"),
    [
        ("Thu, 26 Nov 2026 09:00:00 +0545", True),
        ("26 Nov 2026 09:00 GMT (a comment)", True),
        ("Thu, 26 Nov 126 09:00:00 EST", True),
        ("Sat, 31 Dec 2016 23:59:60 -0800", True),
        ("thu,26 nov 26 09:00 A", True),
        ("Fri, 26 Nov 2026 09:00:00 +0545", False),
        ("Thu, 26 Nov 2026 9:00:00 +0545", False),
        ("Thu, 26 Nov 2026 09:00:00 CET", False),
        ("Thu, 26 Nov 2026 09:00:00", False),
        ("Thursday, 26 November 2026 09:00:00 +0000", False),
        ("2026-11-26T09:00:00Z", False),
    ],
)
def test_exact(body: str, exact: bool) -> None:
    """As RFC 5322 3.3 and 4.3 require, and on the right day of the week."""
    found = date.read(body)
    assert found is not None
    assert found.exact is exact


@pytest.mark.parametrize(
    "body",
    ["", "soon", "03/04/2026 09:00", "Tue, 45 Mar 2023 09:26:53 +0100", "Tue, 14 Mar 2023 18:26:53 AM",
     "Tue, 14 Mar 9999 09:26:53 +0100", "Fri, 31 Dec 9999 23:59:59 -2359", "Tue, 14 Mar 2023 25:00 +0100",
     "Tue, 14 Mar 2023 09:61 +0100", "Tue, 14 Mar 2023", "14 Xyz 2023 09:26", "29 Feb 2023 09:00",
     "Mon, 1 Jan 0001 00:00:00 +0000", "01 Jan 0001 00:00:00 -0100", "0001-01-01T00:00:00Z", "Thu, 26 Nov 0026 09:00 +0100"],
)  # fmt: skip
def test_nothing_where_it_is_in_doubt(body: str) -> None:
    """A wrong time is worse than none."""
    assert date.read(body) is None


@pytest.mark.parametrize("body", ["(" * 90_000, "1 " * 50_000, "JAN 1 " * 20_000, "09:00 +" * 10_000, " " * 99_000])
def test_no_date_is_costly(body: str) -> None:
    """Only the beginning of a field can be a date."""
    begin = time.process_time()
    date.read(body)
    assert time.process_time() - begin < 0.1
