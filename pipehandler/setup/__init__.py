"""Set up a mail host, and undo that: what is there is found, what is missing is done by commands that a person could paste."""
