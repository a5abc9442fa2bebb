"""The parser: `message.parse` and the modules it uses. No I/O, no clock; no content makes it raise."""
