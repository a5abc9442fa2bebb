"""C programs that tests compile."""

import shutil
import subprocess
from pathlib import Path

from .missing import missing

REPOSITORY = Path(__file__).parents[2]
CLIENT = REPOSITORY / "pipehandler" / "handover.c"

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(source: Path, program: Path, *options: str, compiler: str = "cc") -> Path:
    """Compile `source` without a warning; returns the program."""
    if shutil.which(compiler) is None:
        missing(f"the C compiler {compiler}")
    command = [compiler, *STRICT, *options, str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    program.chmod(0o755)
    return program
