"""Hostile mail in a real browser: lists that others collected, generators of our own, and the rig that opens it all."""
