"""The fault campaign: every kind of fault that can occur on a mail host, injected from outside, and the fate of each
message.

Each module is one kind, with a function `run(scale)` that returns its Row. `script/campaign` runs them all and prints
the table; `test_campaign.py` runs a short form of each.
"""
