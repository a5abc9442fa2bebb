"""Every prefix of the files that we ship or write and that a delivery reads before its commit, octet by octet.

A process for each of half a million octets would take a day. But what the import system does with a module that is
truncated depends on nothing but what compile() makes of the rest (importlib.abc.SourceLoader), and that is found out
here, in this process, for each octet: most prefixes are a SyntaxError, most others compile to the same code as with one
octet less. A delivery is made with each prefix that compiles to something of its own, and with a sample of the others,
which shows that the reasoning holds. Bytecode is loaded by marshal, which accepts no prefix at all.

What no import system stands before is always executed: the modules that every delivery begins with, the configuration,
the files that `site` reads, and the hand-over client.
"""

import marshal
import warnings
from functools import lru_cache
from types import CodeType

_SAMPLED = 499
"""Of so many octets that make no difference one is delivered with all the same. A prime number, as no line has it."""

BYTECODE_HEADER = 16
"""Octets before the code (PEP 552): while they are not whole, the source is compiled instead."""


def differs(content: bytes, octets: int) -> bool:
    """Whether a module of which so many octets are left has to be delivered with: it compiles, and to other code than
    one of an octet less; or it belongs to the sample."""
    if octets % _SAMPLED == 0:
        return True
    code = _compiled(content, octets)
    return code is not None and code != _compiled(content, octets - 1)


@lru_cache(maxsize=8)  # the prefix of an octet less is that of the call before
def _compiled(content: bytes, octets: int) -> CodeType | None:
    """What the import system makes of a prefix; None if it refuses it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code: CodeType = compile(content[:octets], "module", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    return code


def accepted_bytecode(content: bytes) -> list[int]:
    """The lengths of the prefixes of a .pyc file that would be executed. There should be none."""
    code = memoryview(content)[BYTECODE_HEADER:]
    return [BYTECODE_HEADER + octets for octets in range(len(code)) if _loads(code[:octets])]


def _loads(code: memoryview) -> bool:
    try:
        marshal.loads(code)
    except (EOFError, ValueError, TypeError):
        return False
    return True
