"""The entrypoint of the package, kept small because the interpreter compiles it again for every delivery.

python -I -S .../pipehandler/__main__.py deliver --sender=... -- RECIPIENT...     as pipe(8) starts it
pipehandler COMMAND                                                               everything else
"""

import posix  # os would be loaded for nothing where a resident worker delivers
import sys

try:
    if __name__ == "__main__":
        # With -S there is no site-packages; the fence brings it back where it is needed.
        sys.path.insert(0, __file__.rpartition("/")[0].rpartition("/")[0])
    from pipehandler.fence import main
except BaseException:
    # An installation that is broken, or being replaced at this moment: Python's own status 1 would bounce.
    if sys.argv[1:2] != ["deliver"]:
        raise
    posix.write(1, b"4.3.0 internal fault\n")
    posix._exit(75)

if __name__ == "__main__":
    main()
