"""The calls that run models: from the command's payload to items, and from a run's outputs to the lines of the answer.

embed   [package, inmemory, total, [text or null, …]]                                  a line each
score   [package, inmemory, total, operator, arguments, [object or null, …]]           one line, an array literal
matrix  [package, inmemory, total, operator, arguments, attributes, rows, as vector, form]   one line, an array literal
        with its numbers in hex as attachment, attribute after attribute: for the form "double precision" array_send() of float8[],
        for "integer" and "real" vector_send() of pgvector values; integers that these have rounded are asked for by the line
        "again". "as vector" asks for predictions as the text of a pgvector value where that holds them, which a backend reads in
        half the time
"""

from __future__ import annotations

import binascii
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pythiadb.engine.arrays import float8_array
from pythiadb.engine.commands import read_payload
from pythiadb.errors import InvalidParameter, InvalidVector
from pythiadb.models.operators import answers_literal, answers_vector, check_operator
from pythiadb.models.session import Item, Model, Output
from pythiadb.vectors.codec import MAX_DIMENSIONS, vector_from_binary, vector_to_text

DIRECT_CHARACTERS = 4096  # inputs up to this length are prepared in the event loop: a thread would cost more
DIRECT_ROWS = 16  # and so are answers of so many rows
EXACT = 2**24  # integers below it keep their value in single precision, and larger ones do not fall below

Lines = list[bytes | None]


class Call(ABC):
    """One call: `key` names the package, `total` is what its statement will send in all, `rows` what this call asks for."""

    verb: ClassVar[str]
    key: str
    inmemory: bool
    total: int
    rows: int
    small: bool  # cheap to prepare

    @abstractmethod
    def prepare(self, model: Model, max_bytes: int) -> list[Item]:
        """Return the items to run. Raises InvalidParameter, LimitExceeded, WrongObjectType."""

    @abstractmethod
    def answer(self, model: Model, outputs: Sequence[Output]) -> Lines:
        """Return the lines of the answer."""


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
    """Rows of numbers, beside attributes that are the same for all rows, to the answers of an operator."""

    verb = "matrix"

    def __init__(self, payload: list[Any], attachment: bytes) -> None:
        (
            self.key, self.inmemory, self.total, self.operator, self.arguments, self.attributes, self.rows,
            self._as_vector, self._form, self._constants,
        ) = payload  # fmt: skip
        self.small = False
        self._attachment = attachment
        self._rounded = False

    def prepare(self, model: Model, max_bytes: int) -> list[Item]:  # noqa: ARG002  (the base's signature)
        check_operator(self.operator, model.spec)
        values, nulls = self._values()
        if self._form == "integer":
            self._rounded = bool(values.max() >= EXACT or values.min() <= -EXACT)
            if self._rounded:
                return []
            values = values.astype(np.int32)
        shape = (len(self.attributes), self.rows)
        if values.size != shape[0] * shape[1]:
            raise InvalidParameter(
                f"{values.size} values do not fill {shape[1]} rows of {shape[0]} attributes"
            )
        holes = None if nulls is None else nulls.reshape(shape).T
        return model.prepare_matrix(self.attributes, values.reshape(shape).T, holes, self._constants)

    def answer(self, model: Model, outputs: Sequence[Output]) -> Lines:
        if self._rounded:
            return [b"again"]
        if self._as_vector and len(outputs) == 1:
            text = answers_vector(self.operator, model.spec, outputs[0])
            if text is not None:
                return [text]
        return super().answer(model, outputs)

    def _values(self) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        try:
            data = binascii.unhexlify(self._attachment)
            return float8_array(data) if self._form == "double precision" else (_vectors(data), None)
        except (ValueError, InvalidVector) as error:
            raise InvalidParameter(
                "the values of a matrix are not numbers in the form that it names"
            ) from error


VERBS = {"embed", "score", "matrix"}


def read_call(verb: str, payload: bytes, attachment: bytes) -> Call:
    """Return the call of a command."""
    if verb == "embed":
        return Embed(read_payload(payload))
    if verb == "score":
        return Score(read_payload(payload))
    return Matrix(read_payload(payload), attachment)


def _vectors(data: bytes) -> NDArray[np.float32]:
    """Return the numbers of vectors one behind the other, all but the last as long as can be. Raises InvalidVector."""
    step = 4 + 4 * MAX_DIMENSIONS
    return np.concatenate(
        [vector_from_binary(data[start : start + step]) for start in range(0, len(data), step)]
    )


def _length(record: dict[str, Any] | None) -> int:
    return sum(len(value) for value in (record or {}).values() if isinstance(value, str | list))
