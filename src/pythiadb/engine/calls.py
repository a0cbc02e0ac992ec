"""The calls that run models: from the command's payload to items, and from a run's outputs to the lines of the answer.

embed   [package, inmemory, total, [text or null, …]]                                  a line each
score   [package, inmemory, total, operator, arguments, [object or null, …]]           one line, an array literal
matrix  [package, inmemory, total, operator, arguments, attributes, rows]              one line, an array literal
        with array_send() of float8[] in base64 as its attachment
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import orjson
from numpy.typing import NDArray

from pythiadb.engine.arrays import float8_array
from pythiadb.errors import InvalidParameter
from pythiadb.models.operators import answers_literal, check_operator
from pythiadb.models.session import Item, Model, Output
from pythiadb.vectors.codec import vector_to_text

DIRECT_CHARACTERS = 4096  # inputs up to this length are prepared in the event loop: a thread would cost more
DIRECT_ROWS = 16  # and so are answers of so many rows

Lines = list[bytes | None]


class Call:
    """One call: `key` names the package, `total` is what its statement will send in all, `rows` what this call asks for."""

    verb: ClassVar[str]
    key: str
    inmemory: bool
    total: int
    rows: int
    small: bool  # cheap to prepare

    def prepare(self, model: Model, max_bytes: int) -> list[Item]:
        """Return the items to run. Raises InvalidParameter, LimitExceeded, WrongObjectType."""
        raise NotImplementedError

    def answer(self, model: Model, outputs: Sequence[Output]) -> Lines:
        """Return the lines of the answer."""
        raise NotImplementedError


class Embed(Call):
    """Texts to vectors; a NULL gives a NULL."""

    verb = "embed"

    def __init__(self, payload: list[Any]) -> None:
        self.key, self.inmemory, self.total, self.inputs = payload
        self.rows = len(self.inputs)
        self.texts = [text for text in self.inputs if text is not None]
        self.small = sum(map(len, self.texts)) <= DIRECT_CHARACTERS

    def prepare(self, model: Model, max_bytes: int) -> list[Item]:
        return model.tokenize(self.texts, max_bytes=max_bytes)

    def answer(self, model: Model, outputs: Sequence[Output]) -> Lines:  # noqa: ARG002  (the base's signature)
        lines = (vector_to_text(output[0]) for output in outputs)  # type: ignore[index]
        return [None if text is None else next(lines) for text in self.inputs]


class Score(Call):
    """Objects of attributes to the answers of an operator."""

    verb = "score"

    def __init__(self, payload: list[Any]) -> None:
        self.key, self.inmemory, self.total, self.operator, self.arguments, self.records = payload
        self.rows = len(self.records)
        self.small = self.rows <= DIRECT_ROWS and sum(map(_length, self.records)) <= DIRECT_CHARACTERS

    def prepare(self, model: Model, max_bytes: int) -> list[Item]:
        check_operator(self.operator, model.spec)
        return model.prepare(self.records, max_bytes=max_bytes)

    def answer(self, model: Model, outputs: Sequence[Output]) -> Lines:
        literals = (
            answers_literal(self.operator, self.arguments or [], model.spec, output) for output in outputs
        )
        return [b"{" + b",".join(literal[1:-1] for literal in literals if len(literal) > 2) + b"}"]


class Matrix(Score):
    """Rows of numbers to the answers of an operator."""

    verb = "matrix"

    def __init__(self, payload: list[Any], attachment: bytes) -> None:
        self.key, self.inmemory, self.total, self.operator, self.arguments, self.attributes, self.rows = (
            payload
        )
        self.small = False
        self._attachment = attachment

    def prepare(self, model: Model, max_bytes: int) -> list[Item]:  # noqa: ARG002  (the base's signature)
        check_operator(self.operator, model.spec)
        values, nulls = self._values()
        return model.prepare_matrix(self.attributes, values, nulls)

    def _values(self) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        try:
            values, nulls = float8_array(base64.b64decode(self._attachment))
        except (ValueError, binascii.Error) as error:
            raise InvalidParameter("the values of a matrix are not an array of double precision") from error
        shape = (self.rows, len(self.attributes))
        if values.size != shape[0] * shape[1]:
            raise InvalidParameter(
                f"{values.size} values do not fill {shape[0]} rows of {shape[1]} attributes"
            )
        return values.reshape(shape), None if nulls is None else nulls.reshape(shape)


VERBS = {"embed", "score", "matrix"}


def read_call(verb: str, payload: bytes, attachment: bytes) -> Call:
    """Return the call of a command."""
    if verb == "embed":
        return Embed(orjson.loads(payload))
    if verb == "score":
        return Score(orjson.loads(payload))
    return Matrix(orjson.loads(payload), attachment)


def _length(record: dict[str, Any] | None) -> int:
    return sum(len(value) for value in (record or {}).values() if isinstance(value, str | list))
