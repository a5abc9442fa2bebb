"""A message and its envelope as values: standard library only, no I/O, no clock."""
