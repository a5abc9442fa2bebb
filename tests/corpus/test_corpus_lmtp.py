"""Every real message comes out of the LMTP dialogue as it went in."""

from harness.lmtp import dialogue

from corpus.messages import names, needs_corpus, read
from pipehandler.lmtp.dialogue import Content, Data, Dialogue, Message


@needs_corpus
def test_real_messages_are_exact() -> None:
    """Byte for byte, but for a final line end where there is none."""
    for name in names():
        raw = read(name)
        client, content = Dialogue("mx"), bytearray()
        octets = dialogue(raw)
        for begin in range(0, len(octets), 65_536):
            events = list(client.feed(octets[begin : begin + 65_536]))
            if isinstance(events[-1], Data):
                events += client.proceed()
            content += b"".join(event.octets for event in events if isinstance(event, Content))
        assert isinstance(events[-1], Message), name
        assert content == (raw if raw.endswith(b"\n") or not raw else raw + b"\n"), name
