"""The files that an ONNX file names as holders of its external data, read from the bytes without building the model.

Only the few message types on the way to such a name are followed; everything else, weights above all, is stepped over. The
file may come from a stranger: a length that leaves its message means that it is no ONNX file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pythiadb.errors import InvalidModel

# Field numbers of onnx.proto on the way from a model to an entry of TensorProto.external_data.
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2  # of an entry
_FIXED = {1: 8, 5: 4}  # bytes by wire type
_BYTES = 2
_MOST_FIELDS = 10_000_000  # of a file; large graphs have some hundred thousand


def external_locations(path: Path) -> list[str]:
    """Return the names in the order in which they appear, each once. Raise InvalidModel for what is no ONNX file."""
    with path.open("rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise InvalidModel("the model file is empty") from error
        with data:
            try:
                return list(dict.fromkeys(_locations(data)))
            except (ValueError, IndexError) as error:
                raise InvalidModel("the file is not an ONNX model") from error


def _locations(data: mmap.mmap) -> Iterator[str]:
    fields = partial(_fields, data, iter(range(_MOST_FIELDS)))
    waiting = [("model", 0, len(data))]
    while waiting:
        kind, start, end = waiting.pop()
        if kind == "entry":
            entry = {number: data[a:b].decode() for number, a, b in fields(start, end)}
            if entry.get(_KEY) == "location":
                yield entry.get(_VALUE, "")
            continue
        inside = _INSIDE[kind]
        found = [(inside[number], a, b) for number, a, b in fields(start, end) if number in inside]
        waiting += reversed(found)


def _fields(data: mmap.mmap, budget: Iterator[int], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each field of a message that is bytes; each field takes one from the budget."""
    while start < end:
        if next(budget, None) is None:
            raise InvalidModel("the model file has too many parts")
        tag, start = _varint(data, start)
        wire = tag & 7
        if wire == 0:
            _, start = _varint(data, start)
        elif wire in _FIXED:
            start += _FIXED[wire]
        elif wire == _BYTES:
            length, start = _varint(data, start)
            if start + length > end:
                raise ValueError
            yield tag >> 3, start, start + length
            start += length
        else:
            raise ValueError
    if start != end:
        raise ValueError


def _varint(data: mmap.mmap, start: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
    raise ValueError
