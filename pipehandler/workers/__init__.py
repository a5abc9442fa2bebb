"""The resident workers of pipehandler serve."""
