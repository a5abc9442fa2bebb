"""The present state of this mail host, for people and for Prometheus."""
