"""Run a Python file as `python -I -S FILE ARGUMENT...` does, with coverage started first: covered-python calls it."""

import sys

_, _, _, path, *arguments = sys.argv
before = sys.path[:]

import site  # noqa: E402

site.main()

import os  # noqa: E402
import posix  # noqa: E402

import coverage  # noqa: E402

coverage.process_startup()
posix._exit = os._exit  # coverage has put its own in the place of the latter
sys.path[:] = before
sys.argv = [path, *arguments]
sys.path.insert(0, os.path.dirname(path))
with open(path, "rb") as file:
    exec(compile(file.read(), path, "exec"), {"__name__": "__main__", "__file__": path})
