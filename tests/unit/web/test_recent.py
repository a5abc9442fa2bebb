"""What is kept for a short time."""

from pipehandler.web.recent import Recent


def test_size() -> None:
    """What was not used for longest goes first, and what is too large is not kept."""
    recent = Recent[str](100, 1000)
    recent.put(1, "a", 40)
    recent.put(2, "b", 40)
    assert recent.get(1) == "a"
    recent.put(3, "c", 40)
    assert (recent.get(1), recent.get(2), recent.get(3), len(recent)) == ("a", None, "c", 2)
    recent.put(4, "d", 101)
    assert recent.get(4) is None
    recent.put(1, "e", 100)
    assert (recent.get(1), len(recent)) == ("e", 1)


def test_age_and_drop() -> None:
    """A value that is too old, or was dropped, is not kept."""
    recent = Recent[str](100, -1)
    recent.put(1, "a", 40)
    assert recent.get(1) is None
    recent.put(1, "a", 40)
    recent.put(2, "b", 40)
    assert len(recent) == 1
    recent.drop(2)
    recent.drop("unknown")
    assert len(recent) == 0


def test_drop_where() -> None:
    """The values of some keys are dropped, and leave their room."""
    recent = Recent[str](100, 1000)
    recent.put((1, "a"), "x", 50)
    recent.put((2, "a"), "y", 50)
    recent.drop_where(lambda key: key == (1, "a"))
    recent.put((3, "b"), "z", 50)
    assert (recent.get((1, "a")), recent.get((2, "a")), recent.get((3, "b"))) == (None, "y", "z")
