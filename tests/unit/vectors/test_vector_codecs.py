"""Codecs: round trips for any value, the exact bytes of pgvector's protocol, and what is refused."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pythiadb.errors import InvalidVector
from pythiadb.vectors import codec
from pythiadb.vectors.codec import SparseVector

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, st.integers(1, 60), elements=floats)
bit_arrays = hnp.arrays(np.bool_, st.integers(1, 100))


def same_bits(first: codec.Vector, second: codec.Vector) -> bool:
    return first.dtype == second.dtype == np.float32 and first.tobytes() == second.tobytes()


@given(vectors)
def test_dense_round_trips_are_exact(vector: codec.Vector) -> None:
    assert same_bits(codec.vector_from_text(codec.vector_to_text(vector)), vector)
    assert same_bits(codec.vector_from_text(codec.vector_to_text(vector).decode()), vector)
    assert same_bits(codec.vector_from_binary(codec.vector_to_binary(vector)), vector)


@given(vectors)
def test_oracle_text_round_trips_are_exact(vector: codec.Vector) -> None:
    found = codec.vector_from_oracle_text(codec.vector_to_oracle_text(vector), len(vector))
    assert isinstance(found, np.ndarray)
    assert same_bits(found, vector)


@given(st.data())
def test_sparse_round_trips(data: st.DataObject) -> None:
    dimensions = data.draw(st.integers(1, 1_000_000_000))
    indices = data.draw(st.lists(st.integers(0, dimensions - 1), unique=True, max_size=20))
    values = data.draw(st.lists(floats, min_size=len(indices), max_size=len(indices)))
    vector = SparseVector.from_entries(dimensions, indices, values)
    kept = vector.without_zeros()
    assert codec.sparse_from_binary(codec.sparse_to_binary(vector)) == kept
    assert codec.sparse_from_text(codec.sparse_to_text(vector)) == kept
    assert codec.vector_from_oracle_text(codec.vector_to_oracle_text(vector)) == vector
    assert hash(codec.sparse_from_text(codec.sparse_to_text(vector))) == hash(kept)


@given(bit_arrays)
def test_bit_round_trips(bits: codec.Bits) -> None:
    assert np.array_equal(codec.bits_from_text(codec.bits_to_text(bits)), bits)
    assert np.array_equal(codec.bits_from_binary(codec.bits_to_binary(bits)), bits)
    if len(bits) % 8 == 0:
        assert np.array_equal(codec.bits_from_bytes(codec.bits_to_bytes(bits)), bits)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    readers: list[Any] = [
        codec.vector_from_binary,
        codec.sparse_from_binary,
        codec.bits_from_binary,
        codec.vector_from_text,
        codec.sparse_from_text,
        codec.bits_from_text,
    ]
    for reader in readers:
        try:
            reader(data)
        except InvalidVector:
            continue


@given(st.text("[]{},:/0123456789.eE+- naNIf\u0661", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    readers: list[Any] = [
        codec.vector_from_text,
        codec.sparse_from_text,
        codec.bits_from_text,
        codec.vector_from_oracle_text,
    ]
    for reader in readers:
        try:
            reader(text)
        except InvalidVector:
            continue


def test_bytes_of_the_protocol() -> None:
    assert codec.vector_to_binary([1, -2]) == bytes.fromhex("0002 0000 3f800000 c0000000")
    assert codec.bits_to_binary(codec.bits_from_text("1010101011")) == bytes.fromhex("0000000a aac0")
    sparse = SparseVector.from_entries(5, [2, 0], [2, 1.5])
    expected = "00000005 00000002 00000000 00000000 00000002 3fc00000 40000000"
    assert codec.sparse_to_binary(sparse) == bytes.fromhex(expected)


def test_texts() -> None:
    extremes = np.array([1e-45, 3.4028235e38, -0.0, 1e-7, 0.1], np.float32)
    assert codec.vector_to_text(extremes) == b"[1e-45,3.4028235e+38,-0.0,1e-7,0.1]"
    assert codec.vector_from_text("[1,2.5,\t-3e-1 ]").tolist() == pytest.approx([1, 2.5, -0.3])
    assert codec.sparse_to_text(SparseVector.from_entries(5, [], [])) == b"{}/5"
    assert codec.sparse_from_text(" { 3:2, 1 : 1.5 } / 5 ").to_dense().tolist() == [1.5, 0, 2, 0, 0]
    assert codec.sparse_from_text("{1:0,2:1}/3").indices.tolist() == [1]
    assert codec.bits_from_bytes([201]).tolist() == [True, True, False, False, True, False, False, True]


def test_negative_zero_as_pgvector_writes_it_keeps_its_sign() -> None:
    assert np.signbit(codec.vector_from_text(b"[1,-0,0,-0 ]")).tolist() == [False, True, False, True]


def test_oracle_literals() -> None:
    read = codec.vector_from_oracle_text
    assert np.allclose(read("[1, 3.4, -05.60, 3e+4, +.5, 2.]"), [1, 3.4, -5.6, 30000, 0.5, 2])
    assert read("[5,[2,4],[10,20]]") == SparseVector.from_entries(5, [2, 4], [10, 20])
    assert read(" [ [2, 4] , [10, 20] ] ", 5) == read("[5,[2,4],[10,20]]")
    kept = read("[16,[1,3,5],[1,0,5]]")
    assert isinstance(kept, SparseVector)
    assert kept.values.tolist() == [1, 0, 5]
    assert codec.vector_to_oracle_text(np.array([34.6, 77.8, 1], np.float32)) == (
        "[3.45999985E+001,7.78000031E+001,1.0E+000]"
    )
    assert codec.vector_to_oracle_text(
        np.array([1e-30, -0.0], np.float32)
    ) == "[1.00000000E-030,-0.0E+000]".replace("1.00000000E", "1.0E")


@pytest.mark.parametrize(
    ("text", "dimensions", "message"),
    [
        ("[1,2]", 3, "vector has 2 dimensions, 3 were expected"),
        ("[5,[1],[2]]", 4, "vector has 5 dimensions, 4 were expected"),
        ("[[1],[2]]", None, "needs a declared one"),
        ("[5,[1.5],[2]]", None, "indices must be integers"),
        ("[5,[5],[2]]", None, "out of bounds for 5 dimensions"),
        ("[5,[1,1],[2,3]]", None, "must not contain duplicates"),
        ("[5,[1,2],[3]]", None, "2 indices and 1 values"),
        ("[5,[1],[1e39]]", None, "out of range"),
    ],
)
def test_oracle_literals_that_are_refused(text: str, dimensions: int | None, message: str) -> None:
    with pytest.raises(InvalidVector, match=message):
        codec.vector_from_oracle_text(text, dimensions)


@pytest.mark.parametrize("code", ["f", "d", "b"])
def test_arrays_of_the_standard_library(code: str) -> None:
    given_array: Any = array(code, [1, -2, 3])
    assert codec.as_vector(given_array).tolist() == [1, -2, 3]
    assert codec.vector_to_text(given_array) == b"[1.0,-2.0,3.0]"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "zero dimensions"),
        ([1.0] * 16_001, "more than 16000 dimensions"),
        ([float("nan")], "NaN not allowed in vector"),
        ([1, float("-inf")], "infinite value not allowed in vector"),
        ([1e39], '"1e[+]39" is out of range for type vector'),
        ([[1.0]], "must have one axis, not 2"),
        ([[1.0], [1, 2]], "must be numbers"),
        (["1"], "must be numbers"),
        ([None], "must be numbers"),
        ([True], "must be numbers"),
        ([10**40], "must be numbers"),
    ],
)
def test_values_that_are_refused(values: Any, message: str) -> None:
    with pytest.raises(InvalidVector, match=message):
        codec.as_vector(values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,2",
        "[1,2",
        "[1,,2]",
        "[1,2,]",
        "[a]",
        "[1] x",
        "[null]",
        "[true]",
        '["1"]',
        "[[1]]",
        "[nan]",
        "[1_0]",
        "{}",
        "[0x1]",
    ],
)
def test_dense_texts_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidVector, match="invalid input syntax for type vector"):
        codec.vector_from_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "{}/",
        "{1:1}",
        "{1}/3",
        "{1:a}/3",
        "{1:1,}/3",
        "{0:1}/3",
        "{4:1}/3",
        "{}/0",
        "{1:1,1:2}/3",
        "{1:1e39}/3",
    ],
)
def test_sparse_texts_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidVector):
        codec.sparse_from_text(text)


def test_a_long_text_is_shown_short() -> None:
    with pytest.raises(InvalidVector) as caught:
        codec.vector_from_text("[" + "x\n" * 500)
    assert len(caught.value.message) < 150
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        "",
        "0001",
        "0001 0001 3f800000",
        "0002 0000 3f800000",
        "0000 0000",
        "0001 0000 7fc00000",
        "0001 0000 7f800000",
    ],
)
def test_binary_vectors_that_are_refused(data: str) -> None:
    with pytest.raises(InvalidVector):
        codec.vector_from_binary(bytes.fromhex(data))


def test_sparse_vectors_check_themselves() -> None:
    index = np.array([3, 1], np.int32)
    value = np.array([1, 2], np.float32)
    with pytest.raises(InvalidVector, match="must rise"):
        SparseVector(5, index, value)
    with pytest.raises(InvalidVector, match="out of bounds"):
        SparseVector(3, index[::-1], value)
    with pytest.raises(InvalidVector, match="1 to 1000000000 dimensions, not 0"):
        SparseVector(0, index[:0], value[:0])
    with pytest.raises(InvalidVector, match="NaN"):
        SparseVector(5, index[:1], np.array([np.nan], np.float32))
    with pytest.raises(InvalidVector, match="must be integers"):
        SparseVector.from_entries(5, [1.5], [1])
    assert SparseVector.from_dense([0, 2, 0]) == SparseVector.from_entries(3, [1], [2])
    assert SparseVector.from_dense([0, 2, 0]) != SparseVector.from_dense([0, 2])
    assert SparseVector.from_dense([0, 2]) != "text"
    assert SparseVector.from_entries(3, [1], [2]).to_dense().tolist() == [0, 2, 0]
