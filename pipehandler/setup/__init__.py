"""Set up a mail host, and undo that.

Setup detects what exists, and adds what is missing by shell commands that a person could paste.
"""
