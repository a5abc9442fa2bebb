"""An event loop in a thread of its own: while Playwright's synchronous interface is in use, its thread has a loop already."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_in_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` to its end and return its result."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()
