"""The console script, and the entrypoint of lines in master.cf that version 0.1.0 printed.

python -I -S -X utf8 -c CODE .../site-packages deliver --sender=... -- RECIPIENT...     as pipe(8) starts the package now
python -I -S .../pipehandler/__main__.py deliver --sender=... -- RECIPIENT...           as version 0.1.0 let it start this file
pipehandler COMMAND                                                                     everything else

CODE is in postfix/templates.py. `check` reports the second form: Python leaves with 0 if this file is empty.
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
