"""Predicates over INCLUDE columns: JSON in, the rows for which PostgreSQL would find the condition true out.

    ["and", p…]  ["or", p…]  ["not", p]  ["=" | "<>" | "<" | "<=" | ">" | ">=", column, value]
    ["in", column, [value…]]  ["between", column, low, high]  ["null", column]  ["notnull", column]

Values are PostgreSQL's texts of constants, or null. A number is what it is as a bare number in SQL, whatever the column's type:
it may lie between two of its values, as a time of day does beside a date. Where a setting like TimeZone decides what a text means, and
where there are too many values, the predicate is refused with UnsupportedPredicate, and the caller lets PostgreSQL judge the rows.

Three-valued logic needs no third value here. NOT is pushed down to the comparisons (De Morgan's laws hold for NULL too), and whether
AND and OR of the rest are true depends only on which parts are true. A comparison with NULL is true neither way.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import UnsupportedPredicate
from pythiadb.index.columns import Column, Columns, Mask
from pythiadb.index.decimals import Point

Predicate = list[Any]

_DEEPEST = 50
_MOST_PARTS = 1_000
_MOST_VALUES = 10_000
_FEW_VALUES = 8  # up to here comparing with each value in turn is faster than a table
_WIDEST_TABLE = 1 << 22
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio
_KEPT_MASKS = 8
_KEPT_BYTES = 64 << 20

_OPPOSITES = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


class Filters:
    """The columns of one segment with the masks of the last predicates. Safe to use from several threads."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._masks: OrderedDict[str, Mask] = OrderedDict()
        self._lock = Lock()
        self._kept = max(1, min(_KEPT_MASKS, _KEPT_BYTES // max(columns.rows, 1)))

    def mask(self, predicate: Predicate) -> Mask:
        """Return [rows] bool, not to be written to: True where the predicate is true. Raises UnsupportedPredicate."""
        key = _text(predicate)
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        made = evaluate(self.columns, predicate)
        made.flags.writeable = False
        with self._lock:
            self._masks[key] = made
            while len(self._masks) > self._kept:
                self._masks.popitem(last=False)
        return made

    def positions(self, predicate: Predicate) -> NDArray[np.int64]:
        """Return the rows for which the predicate is true, ascending. Raises UnsupportedPredicate."""
        return np.flatnonzero(self.mask(predicate))


def evaluate(columns: Columns, predicate: Predicate) -> Mask:
    """Return a new [rows] bool array: True where the predicate is true. Raises UnsupportedPredicate."""
    return _Evaluation(columns).holds(predicate, negated=False, depth=0)


def _text(predicate: Predicate) -> str:
    try:
        return json.dumps(predicate)
    except RecursionError:
        raise UnsupportedPredicate("the predicate has too many parts") from None


def _is_in(codes: NDArray[Any], wanted: list[int]) -> Mask:
    """Tell of each code whether it is among those wanted, which are ascending."""
    if len(wanted) <= _FEW_VALUES:
        found = np.zeros(len(codes), np.bool_)
        for code in wanted:
            found |= codes == code
        return found
    limits = np.iinfo(codes.dtype)
    values = np.array([code for code in wanted if limits.min <= code <= limits.max], codes.dtype)
    if len(values) and wanted[-1] - wanted[0] <= _WIDEST_TABLE:
        return np.isin(codes, values, kind="table")
    # Sparse values: nearly all rows fall out by 16 bits of a hash, the others are looked at.
    table = np.zeros(1 << 16, np.bool_)
    table[_hashes(values)] = True
    found = table[_hashes(codes)]
    likely = np.flatnonzero(found)
    found[likely] = np.isin(codes[likely], values)
    return found


def _hashes(codes: NDArray[Any]) -> NDArray[np.uint64]:
    return (codes.astype(np.int64).view(np.uint64) * _MULTIPLIER) >> np.uint64(48)


class _Evaluation:
    """One predicate over one segment's columns."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.parts = 0

    def holds(self, predicate: Any, *, negated: bool, depth: int) -> Mask:
        """Where the predicate, or its negation, is true."""
        self.parts += 1
        if depth > _DEEPEST or self.parts > _MOST_PARTS:
            raise UnsupportedPredicate("the predicate has too many parts")
        match predicate:
            case ["not", inner]:
                return self.holds(inner, negated=not negated, depth=depth + 1)
            case ["and" | "or" as word, *parts]:
                return self._combined(parts, every=(word == "and") != negated, negated=negated, depth=depth)
            case ["null" | "notnull" as word, str(name)]:
                return self._nulls(self._column(name), wanted=(word == "null") != negated)
            case ["between", name, low, high]:
                both = ["and", [">=", name, low], ["<=", name, high]]
                return self.holds(both, negated=negated, depth=depth + 1)
            case ["in", str(name), list(values)] if len(values) <= _MOST_VALUES:
                return self._among(self._column(name), values, negated=negated)
            case [str(operator), str(name), value] if operator in _OPPOSITES:
                return self._compared(
                    self._column(name), _OPPOSITES[operator] if negated else operator, value
                )
        raise UnsupportedPredicate("not a predicate over included columns")

    def _combined(self, parts: list[Any], *, every: bool, negated: bool, depth: int) -> Mask:
        join = np.logical_and if every else np.logical_or
        done: Mask | None = None
        for part in parts:
            more = self.holds(part, negated=negated, depth=depth + 1)
            done = more if done is None else join(done, more, out=done)
        return self._all(every) if done is None else done

    def _nulls(self, column: Column, *, wanted: bool) -> Mask:
        if column.valid is None:
            return self._all(not wanted)
        return ~column.valid if wanted else column.valid.copy()

    def _among(self, column: Column, values: list[Any], *, negated: bool) -> Mask:
        if not values:
            return self._all(negated)
        points = [self._point(column, value) for value in values if value is not None]
        if negated and len(points) < len(values):
            return self._all(False)  # x NOT IN (…, NULL) is never true
        found = _is_in(column.codes, sorted({point.code for point in points if point.exact}))
        return self._known(column, ~found if negated else found)

    def _compared(self, column: Column, operator: str, value: Any) -> Mask:
        if not column.ordered and operator not in {"=", "<>"}:
            raise UnsupportedPredicate(f"the order of {column.type} values is not known to the index")
        if value is None:
            return self._all(False)
        return self._known(column, _comparison(column.codes, operator, self._point(column, value)))

    def _column(self, name: str) -> Column:
        try:
            return self.columns.by_name[name]
        except KeyError:
            raise UnsupportedPredicate(f'column "{name}" is not included in the index') from None

    def _point(self, column: Column, value: Any) -> Point:
        if not isinstance(value, str):
            raise UnsupportedPredicate("values of a predicate are texts")
        try:
            return column.point(value)
        except ValueError as error:
            raise UnsupportedPredicate(
                f"no certain value of type {column.type}", detail=f"{error}."
            ) from None

    def _known(self, column: Column, mask: Mask) -> Mask:
        """Take null rows out of a new mask."""
        return mask if column.valid is None else np.logical_and(mask, column.valid, out=mask)

    def _all(self, value: bool) -> Mask:
        return np.full(self.columns.rows, value)


def _comparison(codes: NDArray[Any], operator: str, point: Point) -> Mask:
    """Compare codes with a value; one that is not exact stands just below its code."""
    code = point.code
    if not point.exact:
        if operator in {"=", "<>"}:
            return np.full(len(codes), operator == "<>")
        operator = {"<=": "<", ">": ">="}.get(operator, operator)
    compare: dict[str, Callable[[], Any]] = {
        "=": lambda: codes == code,
        "<>": lambda: codes != code,
        "<": lambda: codes < code,
        "<=": lambda: codes <= code,
        ">": lambda: codes > code,
        ">=": lambda: codes >= code,
    }
    mask: Mask = compare[operator]()
    return mask
