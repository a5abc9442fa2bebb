"""The process itself: deadline, kernel limits, child processes, phase times, systemd."""
