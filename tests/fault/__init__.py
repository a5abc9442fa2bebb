"""The fault campaign: every kind of fault that a mail host knows, made from outside, and what became of each message.

Each module is one kind, with a function `run(scale)` that returns its Row. `script/campaign` runs them all and prints the
table; `test_campaign.py` runs a short form of each.
"""
