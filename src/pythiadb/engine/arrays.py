"""PostgreSQL's arrays: of numbers as array_send() writes them, of text as literals."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FLOAT8_OID = 701
_HEAD = struct.Struct("!iiI")  # dimensions, "may hold NULL", type of the elements
_DIMENSION = struct.Struct("!ii")  # length, lower bound
_VALUE = np.dtype([("length", ">i4"), ("value", ">f8")])
_NULL = b"\xff\xff\xff\xff"  # the length -1, and no value


def float8_array(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Return all values of an array in order, and which are NULL (None: none is). Raises ValueError."""
    if len(data) < _HEAD.size:
        raise ValueError("no array")
    dimensions, _, kind = _HEAD.unpack_from(data)
    if kind != FLOAT8_OID or not 0 <= dimensions <= 6:
        raise ValueError("not an array of float8")
    start = _HEAD.size + dimensions * _DIMENSION.size
    count = int(dimensions > 0)
    for number in range(dimensions):
        count *= _DIMENSION.unpack_from(data, _HEAD.size + number * _DIMENSION.size)[0]
    if count < 0 or count * len(_NULL) > len(data) - start:
        raise ValueError("an array with fewer values than it says")
    if len(data) - start == count * _VALUE.itemsize:
        records = np.frombuffer(data, _VALUE, count, start)
        if (records["length"] == 8).all():
            return records["value"].astype(np.float64), None
    return _with_nulls(data, start, count)


def _with_nulls(data: bytes, start: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read values and NULLs, which take less room than values: stretch by stretch."""
    values, nulls = np.zeros(count), np.zeros(count, dtype=np.bool_)
    done = 0
    while done < count:
        if data[start : start + 4] == _NULL:
            nulls[done] = True
            done, start = done + 1, start + 4
            continue
        size = min(count - done, (len(data) - start) // _VALUE.itemsize, 4096)
        records = np.frombuffer(data, _VALUE, size, start)
        other = np.flatnonzero(records["length"] != 8)
        size = int(other[0]) if len(other) else size
        if size == 0:
            raise ValueError("an array whose values are not 8 bytes long")
        values[done : done + size] = records["value"][:size]
        done, start = done + size, start + size * _VALUE.itemsize
    return values, nulls


def text_array(values: Sequence[str], *, quoted: bool) -> bytes:
    """Return an array literal; values that are numbers or uuids need no quotes."""
    if quoted:
        values = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    return f"{{{','.join(values)}}}".encode()
