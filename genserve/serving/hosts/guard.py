"""Hold TorchServe's stop until nothing is open: one idle gRPC call, which the host waits for.

On SIGTERM the host first ends its gRPC server and waits, without a limit, for calls that are open. All the
while it answers HTTP. It tells the other end of every call at once, by a GOAWAY frame, which is the sign to
drain. A call that was never sent a message costs the host nothing and reaches no worker. A worker that dies
ends its call by that.

Sources: RFC 9113 (HTTP/2), sections 3.4, 4.1 and 6; RFC 7541 (HPACK), section 6.2.2.
"""

import contextlib
import socket

PATH = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions2"
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": PATH,
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEAD, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7  # types of frames
ACK = END_STREAM = 1  # flags of SETTINGS and PING; of DATA
END_HEADERS = 4
HEAD_BYTES = 9


class Guard:
    """An open call.

    Args:
        address: of the host's gRPC server for predictions.

    Raises:
        OSError: nothing listens there.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=10)
        self._socket.settimeout(None)
        fields = b"".join(literal(name.encode(), value.encode()) for name, value in HEADERS.items())
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEAD, END_HEADERS, 1, fields))

    def wait(self) -> None:
        """Wait until the host wants to stop.

        Raises:
            OSError: the connection broke.
            EOFError: the host closed it.
        """
        while self._next() != GOAWAY:
            pass

    def release(self) -> None:
        """End the call, and answer the host until it has closed the connection: let it stop.

        It sends a ping behind its goodbye, and waits for the answer before it closes.
        """
        with contextlib.suppress(OSError, EOFError):
            self._socket.sendall(frame(DATA, END_STREAM, 1))
            while True:
                self._next()

    def _next(self) -> int:
        """Read a frame, acknowledge it if that is due, and return its type."""
        head = self._read(HEAD_BYTES)
        payload = self._read(int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        return kind

    def shutdown(self) -> None:
        """Break the connection; who waits for the host is told so by an error."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break the connection, which ends the call as well."""
        self._socket.close()

    def _read(self, n: int) -> bytes:
        read = b""
        while len(read) < n:
            part = self._socket.recv(n - len(read))
            if not part:
                raise EOFError("the host closed the connection")
            read += part
        return read


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field in HPACK, without an index, a table or Huffman's code; both under 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
