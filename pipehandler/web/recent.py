"""Results that are kept for a short time, bounded by their size and their age."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values that were used last. size: the sum of the sizes that are kept. age: seconds for which a value is."""

    def __init__(self, size: int, age: float) -> None:
        self._size, self._age = size, age
        self._used = 0
        self._values: OrderedDict[object, tuple[Value, int, float]] = OrderedDict()

    def get(self, key: object) -> Value | None:
        """Return the value of `key`; None if it is not kept, or no longer."""
        value, _, since = self._values.get(key, (None, 0, 0.0))
        if value is None:
            return None
        if time.monotonic() - since > self._age:
            self.drop(key)
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: object, value: Value, size: int) -> None:
        """Keep a value, instead of those that are too old or were not used for longest; not if it is too large itself."""
        self.drop(key)
        oldest = time.monotonic() - self._age
        for other in [other for other, (_, _, since) in self._values.items() if since < oldest]:
            self.drop(other)
        if size > self._size:
            return
        while self._used + size > self._size:
            self.drop(next(iter(self._values)))
        self._values[key] = value, size, time.monotonic()
        self._used += size

    def drop(self, key: object) -> None:
        """Keep the value of `key` no longer."""
        _, size, _ = self._values.pop(key, (None, 0, 0.0))
        self._used -= size

    def drop_where(self, applies: Callable[[object], bool]) -> None:
        """Drop the values whose keys it applies to."""
        for key in [key for key in self._values if applies(key)]:
            self.drop(key)

    def __len__(self) -> int:
        return len(self._values)
