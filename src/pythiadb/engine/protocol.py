"""The server side of the PostgreSQL wire protocol 3.0, as much of it as libpq's simple query needs. No I/O.

`Wire` takes bytes and gives events; the functions below make the bytes of answers.
Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", sections "Message Flow" and "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

PROTOCOL_3 = 0x0003_0000
CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
MAX_STARTUP = 10_000  # bytes; PostgreSQL's own limit for a start-up packet
_LONGEST = 2**31 - 1  # lengths are signed
TEXT_OID = 25

_LENGTH = struct.Struct("!I")
_SHORT = struct.Struct("!H")
_HEAD = struct.Struct("!cI")  # type and length of a message


class ProtocolViolation(Exception):
    """The peer does not speak the protocol; the connection is closed."""


class Startup(NamedTuple):
    """The first message of a session: user, database, application_name and the like."""

    parameters: dict[str, str]


class EncryptionRequest(NamedTuple):
    """The client asks for SSL or GSS encryption; the answer is the single byte N."""


class Query(NamedTuple):
    """A simple query: the text without its closing zero."""

    text: bytes


class TooLong(NamedTuple):
    """A simple query of more bytes than the limit; they were thrown away as they came."""

    size: int


class Terminate(NamedTuple):
    """The client says goodbye, or asks to cancel a query of another connection, which the engine does not serve."""


class Unsupported(NamedTuple):
    """A message of the extended protocol or of COPY."""

    kind: str


Event = Startup | EncryptionRequest | Query | TooLong | Terminate | Unsupported


class Wire:
    """Turns a byte stream into events. `limit` is the largest message in bytes.

    Of a longer query nothing is kept, but all of it is read: a client that is still writing would not see the error.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._started = False
        self._too_long: TooLong | None = (
            None  # what is thrown away, and how many bytes of it are still to come
        )
        self._to_come = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """Add received bytes and yield the events that are complete. Raises ProtocolViolation."""
        self._buffer += data
        while True:
            event = self._next()
            if event is None:
                return
            yield event

    def _next(self) -> Event | None:
        if not self._started:
            return self._next_startup()
        return self._next_message() if self._too_long is None else self._throw_away()

    def _next_startup(self) -> Event | None:
        if len(self._buffer) < 4:
            return None
        size = _LENGTH.unpack_from(self._buffer)[0]
        if not 8 <= size <= MAX_STARTUP:
            raise ProtocolViolation(f"invalid length of startup packet: {size}")
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[4:size])
        del self._buffer[:size]
        code = _LENGTH.unpack_from(body)[0]
        if code in (SSL_REQUEST, GSSENC_REQUEST):
            return EncryptionRequest()
        if code == CANCEL_REQUEST:
            return Terminate()
        if code >> 16 != PROTOCOL_3 >> 16:
            raise ProtocolViolation(f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}")
        self._started = True
        words = body[4:].decode(errors="replace").split("\0")
        return Startup({name: value for name, value in zip(words[0::2], words[1::2], strict=False) if name})

    def _next_message(self) -> Event | None:
        buffer = self._buffer
        if len(buffer) < 5:
            return None
        kind, size = _HEAD.unpack_from(buffer)
        if not 4 <= size <= (_LONGEST if kind == b"Q" else self._limit):
            raise ProtocolViolation(f"invalid message length: {size}")
        if size > self._limit:
            self._too_long, self._to_come = TooLong(size), size + 1
            return self._throw_away()
        if len(buffer) < size + 1:
            return None
        body = bytes(buffer[5 : size + 1])
        del buffer[: size + 1]
        if kind == b"Q":
            return Query(body[:-1])
        if kind == b"X":
            return Terminate()
        return Unsupported(kind.decode("latin-1"))

    def _throw_away(self) -> Event | None:
        """Drop what has come of a query that is too long; return the event when that was all."""
        dropped = min(len(self._buffer), self._to_come)
        del self._buffer[:dropped]
        self._to_come -= dropped
        if self._to_come:
            return None
        event, self._too_long = self._too_long, None
        return event


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return one protocol message."""
    return kind + _LENGTH.pack(len(body) + 4) + body


# What libpq wants to know of a server; DateStyle and IntervalStyle are what dblink looks at.
_PARAMETERS = {
    "server_version": "18.0 (Pythia engine)",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "integer_datetimes": "on",
    "TimeZone": "UTC",
}

READY = message(b"Z", b"I")
DENY_ENCRYPTION = b"N"
EMPTY_QUERY = message(b"I") + READY
COMMAND_SET = message(b"C", b"SET\0") + READY


def _welcome() -> bytes:
    parameters = b"".join(
        message(b"S", key.encode() + b"\0" + value.encode() + b"\0") for key, value in _PARAMETERS.items()
    )
    # AuthenticationOk; the key data would serve cancel requests, which the engine does not take
    return message(b"R", _LENGTH.pack(0)) + parameters + message(b"K", struct.pack("!II", 0, 0)) + READY


WELCOME = _welcome()

_ONE_COLUMN = message(b"T", _SHORT.pack(1) + b"line\0" + struct.pack("!IhIhih", 0, 0, TEXT_OID, -1, -1, 0))


def result(lines: Sequence[bytes | None]) -> bytes:
    """Return a whole answer: one text column, one row a line, None for NULL."""
    pieces = [_ONE_COLUMN]
    for line in lines:
        if line is None:
            pieces.append(_NULL_ROW)
        else:
            pieces += (b"D", _LENGTH.pack(len(line) + 10), b"\0\1", _LENGTH.pack(len(line)), line)
    pieces.append(message(b"C", b"SELECT %d\0" % len(lines)) + READY)
    return b"".join(pieces)


_NULL_ROW = message(b"D", _SHORT.pack(1) + b"\xff\xff\xff\xff")


def error(
    sqlstate: str, text: str, detail: str | None = None, hint: str | None = None, *, fatal: bool = False
) -> bytes:
    """Return an ErrorResponse; after a fatal one the connection is closed, otherwise it is ready again."""
    severity = "FATAL" if fatal else "ERROR"
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text), ("D", detail), ("H", hint)]
    body = b"".join(k.encode() + v.replace("\0", "").encode(errors="replace") + b"\0" for k, v in fields if v)
    return message(b"E", body + b"\0") + (b"" if fatal else READY)
