"""The statuses are those of sysexits.h."""

import os

from pipehandler.mail import sysexits


def test_as_in_sysexits_h() -> None:
    """Python takes its names from the same header of the C library."""
    expected = {getattr(os, name): name for name in dir(os) if name.startswith("EX_") and name != "EX_NOTFOUND"}
    assert expected == sysexits.NAMES
