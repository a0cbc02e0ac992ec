"""Oracle's scoring operators: from the output of a run to the SQL answer of each row.

Answers are PostgreSQL's text of values, None for NULL. Whole outputs are turned into text at once, by orjson or by looking
labels up, because a scan asks for millions of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pythiadb.errors import InvalidParameter, WrongObjectType
from pythiadb.models.columns import Mask
from pythiadb.models.metadata import Label
from pythiadb.models.package import Spec
from pythiadb.models.scoring import Output, Scores

# The functions that an operator serves, each with the roles of which one must be there.
_NEEDS: dict[str, dict[str, tuple[str, ...]]] = {
    "prediction": {"regression": ("regression",), "classification": ("probability", "label")},
    "prediction_probability": {"classification": ("probability",)},
    "prediction_set": {"classification": ("probability",)},
    "cluster_id": {"clustering": ("probability", "distance")},
    "cluster_probability": {"clustering": ("probability",)},
    "cluster_set": {"clustering": ("probability",)},
    "cluster_distance": {"clustering": ("distance",)},
    "vector_embedding": {"embedding": ("embedding",)},
}
OPERATORS = tuple(_NEEDS)

_KEYS = {"probability": "ProbOutput", "label": "LabelOutput", "distance": "DistanceOutput"}
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_SHOWN_CLASSES = 20

Floats = NDArray[Any]


def check_operator(operator: str, spec: Spec) -> None:
    """Raise WrongObjectType when an operator does not fit the function of a model or the outputs that it has."""
    functions = _NEEDS.get(operator)
    if functions is None:
        raise InvalidParameter(
            f'unrecognized scoring operator "{operator}"', hint=f"Known are {', '.join(OPERATORS)}."
        )
    roles = functions.get(spec.function)
    if roles is None:
        raise WrongObjectType(
            f"model is {_a(spec.function)} model, {operator.upper()} needs {' or '.join(functions)}",
            hint=f"Operators for it are {', '.join(_operators_for(spec))}.",
        )
    if not any(role in spec.outputs for role in roles):
        key = spec.function + _KEYS[roles[0]]
        raise WrongObjectType(
            f"model has no output for {operator.upper()}",
            hint=f'Load the model with the key "{key}" in its metadata.',
        )


def answers(operator: str, arguments: list[Any], spec: Spec, output: Output) -> list[str | None]:
    """Return the answer of each row as text, None for NULL.

    PREDICTION and CLUSTER_ID are labels or numbers; probabilities, distances and regressions are float64, float32 widened
    exactly; sets are JSON arrays, best first, of objects with the members prediction or cluster_id, and probability;
    embeddings are vectors in brackets. Raise WrongObjectType as `check_operator` does, InvalidParameter for an argument
    that is not a class, a positive number or a probability.
    """
    check_operator(operator, spec)
    return _OPERATORS[operator](arguments, spec, output).texts()


def answers_literal(operator: str, arguments: list[Any], spec: Spec, output: Output) -> bytes:
    """Return what `answers` does as the literal of one PostgreSQL text[], in UTF-8."""
    check_operator(operator, spec)
    return b"{" + _OPERATORS[operator](arguments, spec, output).elements() + b"}"


class _Numbers:
    """Answers that are one float64 a row."""

    def __init__(self, values: Floats, missing: Mask) -> None:
        self._values = np.asarray(values, dtype=np.float64)
        self._missing = missing

    def texts(self) -> list[str | None]:
        elements = self.elements().decode().split(",") if len(self._values) else []
        return [None if element == "NULL" else element for element in elements]

    def elements(self) -> bytes:
        gaps = self._missing.any()
        values = np.where(self._missing, np.nan, self._values) if gaps else self._values
        text = orjson.dumps(np.ascontiguousarray(values), option=_NUMPY)[1:-1]
        if not gaps and np.isfinite(values).all():
            return text
        parts = text.split(b",")  # orjson writes null for NaN and infinity
        for row in np.flatnonzero(~np.isfinite(values)).tolist():
            parts[row] = b"NULL" if self._missing[row] else _special(self._values[row]).encode()
        return b",".join(parts)


class _Choices:
    """Answers that are one of a few texts: `places` tells which for each row."""

    def __init__(self, choices: Sequence[str], places: NDArray[np.int64], missing: Mask) -> None:
        self._choices = choices
        self._places = np.where(missing, len(choices), places) if missing.any() else places

    def texts(self) -> list[str | None]:
        choices: list[str | None] = [*self._choices, None]
        return [choices[place] for place in self._places.tolist()]

    def elements(self) -> bytes:
        quoted = [*map(quote_element, self._choices), b"NULL"]
        return b",".join([quoted[place] for place in self._places.tolist()])


class _Texts:
    """Answers that are a text of their own for each row."""

    def __init__(self, texts: list[str | None]) -> None:
        self._texts = texts

    def texts(self) -> list[str | None]:
        return self._texts

    def elements(self) -> bytes:
        return b",".join([b"NULL" if text is None else quote_element(text) for text in self._texts])


class _Sets:
    """Answers that are a JSON array of classes: for each row their places, best first, and how many count."""

    def __init__(
        self,
        heads: Sequence[str],
        places: NDArray[np.int64],
        values: Floats,
        counts: NDArray[np.int64],
        missing: Mask,
    ) -> None:
        self._heads = heads
        self._places = places
        self._values = values
        self._counts = np.where(missing, -1, counts)

    def texts(self) -> list[str | None]:
        return self._joined(list(self._heads))

    def elements(self) -> bytes:
        escaped = [head.replace("\\", "\\\\").replace('"', '\\"') for head in self._heads]
        return ",".join(["NULL" if text is None else f'"{text}"' for text in self._joined(escaped)]).encode()

    def _joined(self, heads: list[str]) -> list[str | None]:
        width = self._places.shape[1]
        flat = np.ascontiguousarray(self._values.ravel())
        numbers = orjson.dumps(flat, option=_NUMPY)[1:-1].decode().split(",")
        members = list(map(str.__add__, map(heads.__getitem__, self._places.ravel().tolist()), numbers))
        starts = range(0, len(members), width)
        texts: list[str | None] = []
        for start, count in zip(starts, self._counts.tolist(), strict=True):
            if count < 0:
                texts.append(None)
            else:
                texts.append(f"[{'},'.join(members[start : start + count])}}}]" if count else "[]")
        return texts


_Answers = _Numbers | _Choices | _Texts | _Sets


def quote_element(text: str) -> bytes:
    """Return a text as an element of a PostgreSQL array literal, always in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode()


def label_text(label: Label) -> str:
    """Return PostgreSQL's text of a label: 1.0 is 1."""
    if isinstance(label, float):
        return str(int(label)) if label.is_integer() and abs(label) < 1e15 else repr(label)
    return str(label)


def _prediction(arguments: list[Any], spec: Spec, output: Output) -> _Answers:
    scores = _scores(arguments, output, 0)
    if spec.function == "regression":
        return _Numbers(scores["regression"], scores.missing)
    if "probability" not in scores:
        return _labels(scores["label"], scores.missing)
    return _chosen(spec, scores["probability"], scores.missing)


def _labels(values: NDArray[Any], missing: Mask) -> _Answers:
    """Answer with labels that the graph itself gave."""
    labels = values.tolist()
    known = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    places = np.fromiter(map(known.__getitem__, labels), np.int64, len(labels))
    return _Choices([label_text(label) for label in known], places, missing)


def _cluster_id(arguments: list[Any], spec: Spec, output: Output) -> _Answers:
    scores = _scores(arguments, output, 0)
    return _chosen(
        spec, scores["probability"] if "probability" in scores else -scores["distance"], scores.missing
    )


def _chosen(spec: Spec, values: Floats, missing: Mask) -> _Answers:
    """Answer with the class of the highest value; NULL where the graph gave NaN, which has no highest."""
    return _Choices(_classes(spec, values), _best(values), missing | np.isnan(values).any(axis=1))


def _probability(arguments: list[Any], spec: Spec, output: Output) -> _Answers:
    scores = _scores(arguments, output, 1)
    values = _probabilities(spec, scores)
    return _Numbers(_of_class(arguments, spec, values, scores.missing, values), scores.missing)


def _distance(arguments: list[Any], spec: Spec, output: Output) -> _Answers:
    scores = _scores(arguments, output, 1)
    values = scores["distance"]
    return _Numbers(_of_class(arguments, spec, values, scores.missing, -values), scores.missing)


def _prediction_set(arguments: list[Any], spec: Spec, output: Output) -> _Answers:
    return _set("prediction", arguments, spec, output)


def _cluster_set(arguments: list[Any], spec: Spec, output: Output) -> _Answers:
    return _set("cluster_id", arguments, spec, output)


def _set(name: str, arguments: list[Any], spec: Spec, output: Output) -> _Answers:
    """Answer with classes by falling probability, the first in order where two are equal."""
    scores = _scores(arguments, output, 2)
    best_n, cutoff = _set_arguments(arguments)
    values = np.asarray(_probabilities(spec, scores), dtype=np.float64)
    order = np.argsort(-values, axis=1, kind="stable")[:, :best_n]
    ranked = np.take_along_axis(values, order, axis=1)
    counts = np.full(len(values), order.shape[1]) if cutoff is None else (ranked >= cutoff).sum(axis=1)
    classes = _classes(spec, values)
    if spec.result == "text":
        classes = [orjson.dumps(label).decode() for label in classes]
    heads = [f'{{"{name}":{label},"probability":' for label in classes]
    return _Sets(heads, order, ranked, counts, scores.missing)


def _embedding(arguments: list[Any], _spec: Spec, output: Output) -> _Answers:
    _count(arguments, 0)
    assert not isinstance(output, Scores)
    return _Texts(
        [
            None if math.isnan(row[0]) else orjson.dumps(np.ascontiguousarray(row), option=_NUMPY).decode()
            for row in output
        ]
    )


_OPERATORS: dict[str, Callable[[list[Any], Spec, Output], _Answers]] = {
    "prediction": _prediction,
    "prediction_probability": _probability,
    "prediction_set": _prediction_set,
    "cluster_id": _cluster_id,
    "cluster_probability": _probability,
    "cluster_set": _cluster_set,
    "cluster_distance": _distance,
    "vector_embedding": _embedding,
}


def _scores(arguments: list[Any], output: Output, most: int) -> Scores:
    _count(arguments, most)
    assert isinstance(output, Scores)
    return output


def _count(arguments: list[Any], most: int) -> None:
    if len(arguments) > most:
        raise InvalidParameter(f"too many arguments: {len(arguments)}, the operator takes {most}")


def _probabilities(spec: Spec, scores: Scores) -> Floats:
    values = scores["probability"]
    if spec.normalize_prob != "softmax":
        return values
    wide = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # of a row with NaN or infinity
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _best(values: Floats) -> NDArray[np.int64]:
    places: NDArray[np.int64] = values.argmax(axis=1)
    return places


def _classes(spec: Spec, values: Floats) -> list[str]:
    """Return the texts of the classes, numbered from 1 when they have no labels."""
    if spec.labels is not None:
        return [label_text(label) for label in spec.labels]
    return [str(number + 1) for number in range(values.shape[1])]


def _of_class(arguments: list[Any], spec: Spec, values: Floats, missing: Mask, rank: Floats) -> Floats:
    """Return the column of the class that is asked for, or each row's value of the highest rank."""
    if not arguments or arguments[0] is None or missing.all():  # no row, no number of classes
        picked: Floats = np.take_along_axis(values, _best(rank)[:, None], axis=1)[:, 0]
        return picked
    classes = _classes(spec, values)
    column: Floats = values[:, _place(arguments[0], classes, numeric=spec.result != "text")]
    return column


def _place(wanted: Any, classes: list[str], *, numeric: bool) -> int:
    text = wanted if isinstance(wanted, str) else label_text(wanted)
    if text in classes:
        return classes.index(text)
    if numeric:
        number = _decimal(text)
        for place, label in enumerate(classes):
            if number is not None and _decimal(label) == number:
                return place
    shown = ", ".join(classes[:_SHOWN_CLASSES]) + (", …" if len(classes) > _SHOWN_CLASSES else "")
    raise InvalidParameter(f'model has no class "{text}"', hint=f"The classes are {shown}.")


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        return None


def _set_arguments(arguments: list[Any]) -> tuple[int | None, float | None]:
    best_n, cutoff = [*arguments, None, None][:2]
    if best_n is not None and (isinstance(best_n, bool) or not isinstance(best_n, int) or best_n < 1):
        raise InvalidParameter(f"number of best classes must be a positive integer, not {best_n}")
    if cutoff is not None and (isinstance(cutoff, bool) or not isinstance(cutoff, int | float)):
        raise InvalidParameter(f"cutoff must be a number, not {cutoff}")
    return best_n, None if cutoff is None else float(cutoff)


def _operators_for(spec: Spec) -> list[str]:
    return [
        operator.upper()
        for operator, functions in _NEEDS.items()
        if any(role in spec.outputs for role in functions.get(spec.function, ()))
    ]


def _a(function: str) -> str:
    return f"an {function}" if function[0] in "aeiou" else f"a {function}"


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
