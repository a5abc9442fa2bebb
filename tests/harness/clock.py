"""A wall clock of its own for the programs under it, by libfaketime: it follows a file, and jumps when that is written. The monotonic
clock and the times of files stay those of the kernel."""

from pathlib import Path

from .missing import missing


class Clock:
    """A separate wall clock for the programs run under it, fast by so many seconds, and changed by `jump`."""

    def __init__(self, folder: Path, seconds: int = 0) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        if not libraries:
            missing("libfaketime")
        self._file = folder / "clock"
        self.jump(seconds)
        self.under = [
            "env",
            f"LD_PRELOAD={libraries[0]}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "NO_FAKE_STAT=1",
        ]

    def jump(self, seconds: int) -> None:
        """Make the clock fast by so many seconds from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.chmod(0o644)
        new.rename(self._file)

    @staticmethod
    def sweep() -> None:
        """Remove what the library leaves in shared memory for processes that end by _exit."""
        for file in Path("/dev/shm").glob("*faketime_s[eh]m_*"):
            if not Path("/proc", file.name.rpartition("_")[2]).exists():
                file.unlink(missing_ok=True)
