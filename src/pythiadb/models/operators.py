"""Oracle's scoring operators: from the output of a run to the SQL answer of each row.

Answers are PostgreSQL's text of values, None for NULL, in the forms of models/answers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pythiadb.errors import InvalidModel, InvalidParameter, WrongObjectType
from pythiadb.models.answers import Answers, Choices, Numbers, Sets, Texts, label_text
from pythiadb.models.columns import Mask
from pythiadb.models.package import Spec
from pythiadb.models.scoring import Floats, Output, Scores
from pythiadb.vectors.dense import MAX_DIMENSIONS

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
        raise WrongObjectType(f"model has no output for {operator.upper()}", hint=_hint_for(roles[0], spec))


def _hint_for(role: str, spec: Spec) -> str:
    if "score" in spec.outputs:
        return 'Its output is a score; load the model with "normalizeProb": "softmax" to make a probability of it.'
    return f'Load the model with the key "{spec.function}{_KEYS[role]}" in its metadata.'


def answers(operator: str, arguments: list[Any], spec: Spec, output: Output) -> list[str | None]:
    """Return the answer of each row as text, None for NULL.

    PREDICTION and CLUSTER_ID are labels or numbers; probabilities, distances and regressions are float64, float32 widened
    exactly; sets are JSON arrays, best first, of objects with the members prediction or cluster_id, and probability;
    embeddings are vectors in brackets. Raise WrongObjectType as `check_operator` does, InvalidParameter for an argument
    that is not a class, a positive number or a probability, InvalidModel where the graph's label is no class of its own.
    """
    check_operator(operator, spec)
    return _OPERATORS[operator](arguments, spec, output).texts()


def answers_literal(operator: str, arguments: list[Any], spec: Spec, output: Output) -> bytes:
    """Return what `answers` does as the literal of one PostgreSQL text[], in UTF-8."""
    check_operator(operator, spec)
    return b"{" + _OPERATORS[operator](arguments, spec, output).elements() + b"}"


def answers_vector(operator: str, spec: Spec, output: Output) -> bytes | None:
    """Return the predictions of a regression as the text of a pgvector value, in shortest float32 digits.

    None where that cannot hold them: other operators, rows without an answer, other types, NaN and infinity, too many rows.
    """
    if operator != "prediction" or spec.function != "regression" or not isinstance(output, Scores):
        return None
    values = output["regression"]
    if values.dtype != np.float32 or not 0 < len(values) <= MAX_DIMENSIONS or output.missing.any():
        return None
    return (
        orjson.dumps(np.ascontiguousarray(values.ravel()), option=_NUMPY)
        if np.isfinite(values).all()
        else None
    )


def _prediction(arguments: list[Any], spec: Spec, output: Output) -> Answers:
    scores = _scores(arguments, output, 0)
    if spec.function == "regression":
        return Numbers(scores["regression"], scores.missing)
    if "probability" not in scores:
        missing = _unsure(scores["score"][:, None], scores.missing) if "score" in scores else scores.missing
        return _labels(scores["label"], missing)
    if "label" in scores:
        return _labels(scores["label"], _unsure(scores["probability"], scores.missing))
    return _chosen(spec, scores["probability"], scores.missing)


def _labels(values: NDArray[Any], missing: Mask) -> Answers:
    """Answer with labels that the graph itself gave."""
    labels = values.tolist()
    known = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    places = np.fromiter(map(known.__getitem__, labels), np.int64, len(labels))
    return Choices([label_text(label) for label in known], places, missing)


def _unsure(values: Floats, missing: Mask) -> Mask:
    """Return the rows without an answer: missing ones, and those where the graph gave NaN, which has no highest."""
    unsure: Mask = missing | np.isnan(values).any(axis=1)
    return unsure


def _cluster_id(arguments: list[Any], spec: Spec, output: Output) -> Answers:
    scores = _scores(arguments, output, 0)
    return _chosen(
        spec, scores["probability"] if "probability" in scores else -scores["distance"], scores.missing
    )


def _chosen(spec: Spec, values: Floats, missing: Mask) -> Answers:
    """Answer with the class of the highest value."""
    return Choices(_classes(spec, values), _best(values), _unsure(values, missing))


def _probability(arguments: list[Any], spec: Spec, output: Output) -> Answers:
    scores = _scores(arguments, output, 1)
    values = _probabilities(spec, scores)

    def best() -> NDArray[np.int64]:
        return _labelled(spec, scores) if "label" in scores else _best(values)

    return Numbers(_of_class(arguments, spec, values, scores.missing, best), scores.missing)


def _labelled(spec: Spec, scores: Scores) -> NDArray[np.int64]:
    """Return the places of the classes that the graph itself gave as labels. Raise InvalidModel for one that is no class."""
    assert spec.labels is not None
    known = {label: place for place, label in enumerate(spec.labels)}
    given = scores["label"].tolist()
    places = np.fromiter((known.get(label, -1) for label in given), np.int64, len(given))
    strange = np.flatnonzero((places < 0) & ~scores.missing)  # a missing row has no label
    if len(strange):
        raise InvalidModel(f'model gave the label "{given[strange[0]]}", which is none of its classes')
    return places.clip(min=0)


def _distance(arguments: list[Any], spec: Spec, output: Output) -> Answers:
    scores = _scores(arguments, output, 1)
    values = scores["distance"]
    return Numbers(_of_class(arguments, spec, values, scores.missing, lambda: _best(-values)), scores.missing)


def _prediction_set(arguments: list[Any], spec: Spec, output: Output) -> Answers:
    return _set("prediction", arguments, spec, output)


def _cluster_set(arguments: list[Any], spec: Spec, output: Output) -> Answers:
    return _set("cluster_id", arguments, spec, output)


def _set(name: str, arguments: list[Any], spec: Spec, output: Output) -> Answers:
    """Answer with classes by falling probability, the first in order where two are equal; none where PREDICTION is NULL."""
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
    return Sets(heads, order, ranked, counts, _unsure(values, scores.missing))


def _embedding(arguments: list[Any], _spec: Spec, output: Output) -> Answers:
    _count(arguments, 0)
    assert not isinstance(output, Scores)
    return Texts(
        [
            None if math.isnan(row[0]) else orjson.dumps(np.ascontiguousarray(row), option=_NUMPY).decode()
            for row in output
        ]
    )


_OPERATORS: dict[str, Callable[[list[Any], Spec, Output], Answers]] = {
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


def _of_class(
    arguments: list[Any],
    spec: Spec,
    values: Floats,
    missing: Mask,
    best: Callable[[], NDArray[np.int64]],
) -> Floats:
    """Return the column of the class that is asked for, or each row's value at the place that `best` gives."""
    if not arguments or arguments[0] is None or missing.all():  # no row, no number of classes
        picked: Floats = np.take_along_axis(values, best()[:, None], axis=1)[:, 0]
        return picked
    classes = _classes(spec, values)
    column: Floats = values[:, _place(arguments[0], classes, spec)]
    return column


def _place(wanted: Any, classes: list[str], spec: Spec) -> int:
    text = wanted if isinstance(wanted, str) else label_text(wanted)
    if text in classes:
        return classes.index(text)
    if spec.result != "text":
        number = _decimal(text)
        for place, label in enumerate(classes):
            if number is not None and _decimal(label) == number:
                return place
    shown = ", ".join(classes[:_SHOWN_CLASSES]) + (", …" if len(classes) > _SHOWN_CLASSES else "")
    one, many = ("cluster", "clusters") if spec.function == "clustering" else ("class", "classes")
    raise InvalidParameter(f'model has no {one} "{text}"', hint=f"The {many} are {shown}.")


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        return None


def _set_arguments(arguments: list[Any]) -> tuple[int | None, float | None]:
    best_n, cutoff = [*arguments, None, None][:2]
    if best_n is not None and (isinstance(best_n, bool) or not isinstance(best_n, int) or best_n < 1):
        raise InvalidParameter(
            f"number of best classes must be a positive integer, not {best_n}",
            hint="Leave it out, or write NULL, for all classes.",
        )
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
