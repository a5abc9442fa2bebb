"""The current status of this mail host, for operators and for Prometheus."""
