"""Replaces the text after -c while script/coverage measures: it starts coverage, because -S keeps coverage from
starting, and then runs the text."""

import sys

without_site = sys.path[:]

import site  # noqa: E402

site.main()

import os  # noqa: E402
import posix  # noqa: E402

import coverage  # noqa: E402

coverage.process_startup()
posix._exit = os._exit  # coverage has replaced the latter with its own
from pipehandler.postfix.templates import CODE  # noqa: E402

for name in [name for name in sys.modules if name.partition(".")[0] == "pipehandler"]:
    del sys.modules[name]
sys.path[:] = without_site
exec(CODE)
