"""Tests against a corpus of real mail, which is not part of the repository."""
