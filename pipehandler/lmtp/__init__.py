"""The LMTP receiver (RFC 2033): a dialogue without I/O, and the process that runs it on sockets."""
