"""Signed commands: whatever is changed on the way, and whatever is too old, is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythiadb.engine.commands import Command, NotSigned, read_payload, sign, verify

SECRET = bytes(range(32))
NOW = 1_800_000_000
PAYLOADS = st.binary(max_size=60).map(lambda data: data.replace(b"\n", b""))
VERBS = st.text("abcdefghij-", min_size=1, max_size=10)


@given(verb=VERBS, payload=PAYLOADS, attachment=st.binary(max_size=60))
def test_command_goes_there_and_back(verb: str, payload: bytes, attachment: bytes) -> None:
    """The attachment may hold anything, line ends too."""
    line = sign(SECRET, NOW, verb, payload)
    assert verify(line, SECRET, NOW, 60) == Command(verb, payload, b"")
    assert verify(line + b"\n" + attachment, SECRET, NOW, 60) == Command(verb, payload, attachment)


@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_any_changed_byte_is_refused(place: int, change: int) -> None:
    line = bytearray(sign(SECRET, NOW, "embed", b'["package",1,["text"]]'))
    line[place % len(line)] ^= change
    with pytest.raises(NotSigned):
        verify(bytes(line), SECRET, NOW, 60)


@given(cut=st.integers(0, 200), extra=st.binary(min_size=1, max_size=20))
def test_shorter_and_longer_commands_are_refused(cut: int, extra: bytes) -> None:
    line = sign(SECRET, NOW, "embed", b'["package",1,["text"]]')
    with pytest.raises(NotSigned):
        verify(line[: cut % len(line)], SECRET, NOW, 60)
    if not extra.startswith(b"\n"):
        with pytest.raises(NotSigned):
            verify(line + extra, SECRET, NOW, 60)


@given(text=st.binary(max_size=200))
def test_strangers_bytes_are_refused(text: bytes) -> None:
    with pytest.raises(NotSigned):
        verify(text, SECRET, NOW, 60)


def test_other_secret_is_refused() -> None:
    with pytest.raises(NotSigned, match="Pythia's own functions only"):
        verify(sign(SECRET, NOW, "ping", b""), bytes(32), NOW, 60)


@pytest.mark.parametrize("age", [-61, -60, 0, 60, 61])
def test_age_counts_both_ways(age: int) -> None:
    line = sign(SECRET, NOW, "ping", b"")
    if abs(age) <= 60:
        assert verify(line, SECRET, NOW + age, 60).verb == "ping"
    else:
        with pytest.raises(NotSigned, match="too old"):
            verify(line, SECRET, NOW + age, 60)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5, null, "x"]}', {"a": [1, -2.5, None, "x"]}),
        ("[1" + "0" * 400 + ", 7, 0.5]", [10**400, 7, 0.5]),
        ("[-1" + "0" * 5000 + ".5]", [-(10**5000)]),
        ("[1e400, 1e-400]", [10**400, 0.0]),
    ],
)
def test_numbers_of_any_size_are_read(text: str, value: object) -> None:
    """jsonb holds numbers that double precision does not."""
    assert read_payload(text.encode()) == value
