"""Mail from Postfix's pipe(8) into PostgreSQL: once, byte-exact, in one transaction.

An application that reads the mail needs two names:

    import pipehandler

    for delivery in pipehandler.follow("host=/run/postgresql dbname=mail", cursor=saved):
        print(delivery.recipient, delivery.subject)
        saved = delivery.cursor

`follow` returns every delivery once, in an order that never changes, and then waits for new ones. Its role needs
pipehandler_reader. Each `Delivery` is a typed named tuple. `StoreError` is raised if the database cannot be used; its text is
for a log, its attribute `sqlstate` for a program. These names and `__version__` are the whole Python interface; everything
below is internal and may change in any release (docs/release.md).

The names are imported when they are first used, because every delivery imports this file and needs none of them.
"""

__version__ = "0.1.0"
__all__ = ["Delivery", "StoreError", "__version__", "follow"]

TYPE_CHECKING = False  # typing itself is too costly for every delivery
if TYPE_CHECKING:
    from .store.errors import StoreError
    from .store.stream import Delivery, follow


def __getattr__(name: str) -> object:
    if name in ("Delivery", "StoreError", "follow"):
        from .store import stream

        return getattr(stream, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
