"""The steps, each a function that finds what is there and returns what is missing."""
