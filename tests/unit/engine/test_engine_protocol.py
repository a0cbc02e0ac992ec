"""The wire protocol: any cut of the stream gives the same events, answers are what a client reads, limits hold."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythiadb.engine import protocol
from pythiadb.engine.protocol import ProtocolViolation, Wire

LIMIT = 1000
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)


def startup(parameters: dict[str, str], code: int = protocol.PROTOCOL_3) -> bytes:
    words = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items())
    body = struct.pack("!I", code) + words + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def read(chunks: list[bytes]) -> list[object]:
    """Return the events, and the violation that ends them if there is one."""
    wire, events = Wire(LIMIT), []
    try:
        for chunk in chunks:
            events += wire.feed(chunk)
    except ProtocolViolation as violation:
        events.append(str(violation))  # type: ignore[arg-type]
    return events  # type: ignore[return-value]


streams = st.builds(
    lambda encryption, parameters, messages: (
        encryption + startup(parameters) + b"".join(protocol.message(kind, body) for kind, body in messages)
    ),
    st.sampled_from(
        [b"", struct.pack("!II", 8, protocol.SSL_REQUEST), struct.pack("!II", 8, protocol.GSSENC_REQUEST)]
    ),
    st.dictionaries(NAMES, NAMES, max_size=4),
    st.lists(st.tuples(st.sampled_from([b"Q", b"X", b"P", b"d"]), st.binary(max_size=60)), max_size=6),
)


@given(stream=st.one_of(streams, st.binary(max_size=100)), cuts=st.lists(st.integers(0, 400), max_size=20))
def test_any_cut_of_the_stream_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    whole = read([stream])
    assert read([stream[i : i + 1] for i in range(len(stream))]) == whole
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert read([stream[a:b] for a, b in itertools.pairwise(places)]) == whole


@given(stream=st.binary(max_size=300))
def test_garbage_is_a_violation_or_waits_for_more(stream: bytes) -> None:
    read([stream])


@given(parameters=st.dictionaries(NAMES, NAMES, max_size=5))
def test_parameters_of_the_startup(parameters: dict[str, str]) -> None:
    assert (
        read([startup(parameters)]) == [protocol.Startup({**parameters, **({"": ""} if False else {})})]
        or "" in parameters
    )


def test_encryption_requests_come_before_the_startup() -> None:
    requests = struct.pack("!II", 8, protocol.SSL_REQUEST) + struct.pack("!II", 8, protocol.GSSENC_REQUEST)
    events = read([requests + startup({"user": "x"})])
    assert events == [
        protocol.EncryptionRequest(),
        protocol.EncryptionRequest(),
        protocol.Startup({"user": "x"}),
    ]


def test_cancel_request_is_a_goodbye() -> None:
    request = struct.pack("!IIII", 16, protocol.CANCEL_REQUEST, 1, 2)
    assert read([request]) == [protocol.Terminate()]


def test_largest_message_and_one_byte_more() -> None:
    query = b"x" * (LIMIT - 5) + b"\0"
    assert read([startup({}), protocol.message(b"Q", query)])[1] == protocol.Query(query[:-1])
    longer = protocol.message(b"Q", b"x" + query) + protocol.message(b"Q", b"y\0")
    assert read([startup({}), longer])[1:] == [protocol.TooLong(LIMIT + 1), protocol.Query(b"y")]
    assert (
        read([startup({}), protocol.message(b"P", b"x" + query)])[1] == f"invalid message length: {LIMIT + 1}"
    )


@given(size=st.integers(LIMIT - 10, 3 * LIMIT), cuts=st.lists(st.integers(0, 4 * LIMIT), max_size=9))
def test_what_is_too_long_is_thrown_away_as_it_comes(size: int, cuts: list[int]) -> None:
    """However it is cut, nothing of it is kept, and what follows is read."""
    stream = protocol.message(b"Q", b"x" * size + b"\0") + protocol.message(b"Q", b"y\0")
    wire, events = Wire(LIMIT), []
    list(wire.feed(startup({})))
    for a, b in itertools.pairwise([0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]):
        events += wire.feed(stream[a:b])
        assert len(wire._buffer) <= LIMIT + 1
    first = protocol.TooLong(size + 5) if size + 5 > LIMIT else protocol.Query(b"x" * size)
    assert events == [first, protocol.Query(b"y")]


def test_too_long_a_message_is_refused_before_it_has_arrived() -> None:
    """The length alone is enough: nobody waits for 4 GB."""
    assert read([startup({}), b"Q\xff\xff\xff\xff"])[1] == "invalid message length: 4294967295"
    assert read([struct.pack("!I", protocol.MAX_STARTUP + 1)]) == ["invalid length of startup packet: 10001"]


@pytest.mark.parametrize("size", [0, 3])
def test_message_shorter_than_its_own_length_is_refused(size: int) -> None:
    assert read([startup({}), b"Q" + struct.pack("!I", size)])[1] == f"invalid message length: {size}"


# Answers ------------------------------------------------------------------------------------------------------------------


def parse(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Cut an answer into messages as a client does."""
    while data:
        size = struct.unpack_from("!I", data, 1)[0]
        assert len(data) > size
        yield chr(data[0]), data[5 : size + 1]
        data = data[size + 1 :]


def parse_row(body: bytes) -> bytes | None:
    columns, size = struct.unpack_from("!Hi", body)
    assert columns == 1
    if size == -1:
        assert len(body) == 6
        return None
    assert len(body) == 6 + size
    return body[6:]


@given(lines=st.lists(st.one_of(st.none(), st.binary(max_size=50)), max_size=20))
def test_result_reads_back(lines: list[bytes | None]) -> None:
    messages = list(parse(protocol.result(lines)))
    assert [kind for kind, _ in messages] == ["T", *"D" * len(lines), "C", "Z"]
    assert [parse_row(body) for kind, body in messages if kind == "D"] == lines
    assert messages[-2][1] == b"SELECT %d\0" % len(lines)


@given(
    text=st.text(max_size=50), detail=st.none() | st.text(max_size=20), hint=st.none() | st.text(max_size=20)
)
def test_error_reads_back(text: str, detail: str | None, hint: str | None) -> None:
    """Also texts with zero bytes and lone surrogates, which the protocol cannot carry, stay well-formed."""
    (kind, body), ready = parse(protocol.error("22000", text, detail, hint))
    assert (kind, ready) == ("E", ("Z", b"I"))
    assert body.endswith(b"\0\0") or body == b"\0"
    fields = {field[:1]: field[1:].decode() for field in body[:-2].split(b"\0")}
    assert fields[b"S"] == fields[b"V"] == "ERROR"
    assert fields[b"C"] == "22000"
    for key, value in ((b"M", text), (b"D", detail), (b"H", hint)):
        clean = (value or "").replace("\0", "")
        assert fields.get(key, "") == clean


def test_fatal_error_is_not_followed_by_ready() -> None:
    [(kind, body)] = parse(protocol.error("08P01", "x", fatal=True))
    assert kind == "E"
    assert body.startswith(b"SFATAL\0")


def test_welcome_lets_a_client_in() -> None:
    kinds = [kind for kind, _ in parse(protocol.WELCOME)]
    assert kinds[0] == "R"
    assert kinds[-2:] == ["K", "Z"]
