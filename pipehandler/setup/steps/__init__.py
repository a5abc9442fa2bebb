"""The steps: each is a function that detects what exists and returns what is missing."""
