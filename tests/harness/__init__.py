"""Real servers for tests, demo and benchmarks: started here, on loopback, and stopped by process id."""
