"""The documents generated from the program and the database: docs/cli.md, docs/schema.md and the manual pages in
docs/man/.

`script/reference` writes the files; tests/unit/test_reference.py and tests/integration/test_schema.py compare them.
"""
