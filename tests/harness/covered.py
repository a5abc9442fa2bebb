"""Stands for pipehandler/__main__.py while script/coverage measures: starts coverage, then runs it, as -S keeps coverage out."""

import sys

without_site = sys.path[:]

import site  # noqa: E402

site.main()

import importlib.util  # noqa: E402
import os  # noqa: E402
import posix  # noqa: E402

import coverage  # noqa: E402

coverage.process_startup()
posix._exit = os._exit  # coverage has put its own in the place of the latter
found = importlib.util.find_spec("pipehandler.__main__")
assert found is not None
assert found.origin is not None
for name in [name for name in sys.modules if name.partition(".")[0] == "pipehandler"]:
    del sys.modules[name]
sys.path[:] = without_site
with open(found.origin, "rb") as file:
    exec(compile(file.read(), found.origin, "exec"), {"__name__": "__main__", "__file__": found.origin})
