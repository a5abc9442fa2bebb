"""pipehandler: mail from Postfix's pipe(8) into PostgreSQL, once, byte-exact, in one transaction.

For applications there are `follow` and `Delivery`. Until one of them is asked for this file imports nothing, because every delivery
pays for it; ARCHITECTURE.md describes the floors above it.
"""

__version__ = "0.1.0"
__all__ = ["Delivery", "__version__", "follow"]

TYPE_CHECKING = False  # typing itself is too costly for every delivery
if TYPE_CHECKING:
    from .store.stream import Delivery, follow


def __getattr__(name: str) -> object:
    if name in ("Delivery", "follow"):
        from .store import stream

        return getattr(stream, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
