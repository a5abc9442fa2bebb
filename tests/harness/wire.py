"""What Chromium loads, as it counts it on the wire."""

from typing import Any

from playwright.sync_api import CDPSession


class Wire:
    """The requests of a tab: their addresses and their octets, headers included."""

    def __init__(self, devtools: CDPSession) -> None:
        self.urls: dict[str, str] = {}
        self.octets: dict[str, int] = {}
        devtools.on("Network.requestWillBeSent", self._sent)
        devtools.on("Network.loadingFinished", self._finished)
        devtools.send("Network.enable")

    def _sent(self, event: Any) -> None:
        if event["request"]["url"].startswith("http"):
            self.urls[event["requestId"]] = event["request"]["url"]

    def _finished(self, event: Any) -> None:
        self.octets[event["requestId"]] = int(event["encodedDataLength"])
