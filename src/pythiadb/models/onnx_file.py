"""A package from one ONNX file whose graph takes SQL values itself: the rules of Oracle's LOAD_ONNX_MODEL."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.models.binary import add_two_columns, are_chances, is_sigmoid, two_columns
from pythiadb.models.labels import labels_of, labels_seen
from pythiadb.models.metadata import Label, check_labels, parse_metadata
from pythiadb.models.onnx_inputs import bind_inputs
from pythiadb.models.onnx_outputs import Outputs, choose_outputs
from pythiadb.models.package import GRAPH, Package, Spec, safe_name
from pythiadb.models.preparing import check_defaults
from pythiadb.models.trial import Trial
from pythiadb.models.validate import MAX_MODEL_BYTES, CheckedModel, check_model_file

_RESULTS = {"embedding": "vector", "regression": "double precision", "clustering": "numeric"}


def package_from_onnx(
    source: Path | bytes,
    work: Path,
    metadata: str | Mapping[str, Any] | None = None,
    *,
    max_bytes: int = MAX_MODEL_BYTES,
    external_data: Mapping[str, Path] | None = None,
) -> Package:
    """Return the package of an ONNX file.

    New files are written to the folder `work`; files of `source` that stay as they are are named where they lie. Without
    `metadata` Oracle's default applies: an embedding, input "input", output "embedding", attribute DATA. `external_data`
    maps the file names that the graph uses to files that lie elsewhere. The graph is run with made-up values to learn the
    number and the labels of its classes. Raise InvalidModel or FeatureNotSupported for a model that cannot be served,
    InvalidParameter for metadata that do not fit it.
    """
    meta = parse_metadata(metadata)
    path = _placed(source, work, external_data or {})
    checked = check_model_file(path, max_bytes=max_bytes)
    inputs, attributes = bind_inputs(checked.model, meta)
    outputs = choose_outputs(checked.model, meta)
    files = {GRAPH: path} | {name: path.parent / name for name in checked.external}
    if outputs.changed:
        files = _rewritten(checked, path, work)
    spec = Spec(
        function=meta.function,
        inputs=inputs,
        outputs=outputs.roles,
        attributes=attributes,
        result=_RESULTS.get(meta.function, "numeric"),
        labels=meta.labels,
        normalize_prob=meta.normalize_prob,
        default_on_null=meta.default_on_null,
    )
    trial = Trial(files[GRAPH], spec, checked.model)
    check_defaults(spec, trial.tensors)
    split = _split_column(spec, trial, checked, outputs) if _has_one_column(spec, trial) else None
    if split is not None:
        spec, files = split, _rewritten(checked, path, work)
        trial = Trial(files[GRAPH], spec, checked.model)
    return Package(_complete(spec, trial, checked, outputs), files, meta.raw)


def _placed(source: Path | bytes, work: Path, external: Mapping[str, Path]) -> Path:
    """Return the graph file, with its external data beside it."""
    if isinstance(source, Path) and all(path == source.parent / name for name, path in external.items()):
        return source
    target = work / GRAPH
    if isinstance(source, bytes):
        target.write_bytes(source)
    else:
        _link(source, target)
    for name, path in external.items():
        if not safe_name(name):
            raise InvalidModel(f'external data lies outside the model folder: "{name}"')
        _link(path, work / name)
    return target


def _rewritten(checked: CheckedModel, path: Path, work: Path) -> dict[str, Path]:
    """Write the edited graph, its external data beside it, and return the files."""
    target = work / GRAPH
    target.unlink(missing_ok=True)  # it may be a link to a file of the caller
    target.write_bytes(checked.model.SerializeToString())
    for name in checked.external:
        if work != path.parent:
            _link(path.parent / name, work / name)
    return {GRAPH: target} | {name: work / name for name in checked.external}


def _link(source: Path, target: Path) -> None:
    """Make a file known under another name; a copy where the file system cannot link."""
    if not source.is_file():
        raise InvalidModel(f'model file "{source.name}" is missing')
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _complete(spec: Spec, trial: Trial, checked: CheckedModel, outputs: Outputs) -> Spec:
    """Return the specification with what a run with made-up rows shows: dimensions, labels."""
    if spec.function == "embedding":
        return replace(spec, dimensions=trial.width("embedding"))
    if spec.function == "regression":
        trial.single("regression")
        return spec
    if "label" in spec.outputs:
        return _by_label_alone(spec, trial, outputs)
    if _has_one_column(spec, trial):
        return _by_label_and_score(spec, trial, outputs)
    widths = {role: trial.width(role) for role in spec.outputs}
    if len(set(widths.values())) > 1:
        raise InvalidModel(
            f"model outputs disagree on the number of clusters: {', '.join(map(str, widths.values()))}"
        )
    classes = next(iter(widths.values()))
    if spec.function == "clustering":
        _check_clusters(spec, classes, outputs)
        labels = spec.labels
    else:
        spec, labels = _with_labels(spec, trial, checked, outputs, classes)
    if labels is not None and len(labels) != classes:
        tensor = next(iter(spec.outputs.values()))
        raise InvalidParameter(
            f'the number of labels is {len(labels)}, model output "{tensor}" has {classes} classes',
            hint="Give one label for each class, in the order of the output.",
        )
    if labels is not None:
        check_labels(labels)
    text = spec.function == "classification" and labels is not None and isinstance(labels[0], str)
    return replace(spec, labels=labels, result="text" if text else "numeric")


def _with_labels(
    spec: Spec, trial: Trial, checked: CheckedModel, outputs: Outputs, classes: int
) -> tuple[Spec, tuple[Label, ...] | None]:
    """Return the specification of a classifier with the output that names each row's class, if that is to answer; and the labels.

    What the model answers need not be the most probable class: support vectors vote on their own. Where the metadata give other
    names to the classes, it has to be.
    """
    labels = spec.labels
    if labels is None:
        labels = _own_labels(spec, trial, checked, outputs, classes)
    elif outputs.label_named and _names_rows(trial, outputs):
        _check_own(labels, trial, outputs)
    else:
        return spec, labels
    if labels is not None and _names_rows(trial, outputs):
        assert outputs.label is not None
        spec = replace(spec, outputs={**spec.outputs, "label": outputs.label})
    return spec, labels


def _check_own(labels: tuple[Label, ...], trial: Trial, outputs: Outputs) -> None:
    """Raise InvalidParameter when the graph names a class that is not among the labels of the metadata."""
    assert outputs.label is not None
    own = np.asarray(trial.output(outputs.label)).ravel().tolist()
    other = next((label for label in own if label not in labels), None)
    if other is not None:
        raise InvalidParameter(
            f'model output "{outputs.label}" gives the label "{other}", which is not in "labels"',
            hint="Give the labels of the model; or leave the output out, then the most probable class answers.",
        )


def _check_clusters(spec: Spec, clusters: int, outputs: Outputs) -> None:
    """Refuse a graph that gives one number and nothing else: what it is for a single cluster is not likely meant."""
    if clusters == 1 and spec.labels is None and len(outputs.types) == 1:
        tensor = next(iter(spec.outputs.values()))
        raise InvalidModel(
            f'model output "{tensor}" has one value a row, expected one for each cluster',
            hint='A model that predicts a number has the function "regression". For a single cluster add the key "labels".',
        )


def _has_one_column(spec: Spec, trial: Trial) -> bool:
    """Tell whether a classifier has one number a row in place of one for each class."""
    return spec.function == "classification" and (
        "probability" in spec.outputs and trial.is_single(spec.outputs["probability"])
    )


def _split_column(spec: Spec, trial: Trial, checked: CheckedModel, outputs: Outputs) -> Spec | None:
    """Make two columns of a probability of the second class, or of a score that softmax is to make one; None for others."""
    tensor = spec.outputs["probability"]
    scores = False
    if not is_sigmoid(checked.model, tensor):
        scores = spec.normalize_prob == "softmax"
        if not scores and not _is_chance(trial, tensor, outputs):
            return None
    if spec.labels is not None and len(spec.labels) != 2:
        raise InvalidParameter(
            f'the number of labels is {len(spec.labels)}, model output "{tensor}" tells two classes apart',
            hint="It has one number a row, for the second of two labels.",
        )
    made = add_two_columns(checked.model, tensor, outputs.types[tensor], scores=scores)
    return replace(spec, outputs={**spec.outputs, "probability": made})


def _is_chance(trial: Trial, tensor: str, outputs: Outputs) -> bool:
    """Tell whether one number a row is a probability: by the metadata, and by the labels that go with it if there are some."""
    values = trial.output(tensor)
    if not outputs.probability_named or not are_chances(values):
        return False
    if not _names_rows(trial, outputs):
        return True
    assert outputs.label is not None
    given = np.asarray(trial.output(outputs.label)).ravel().tolist()
    return labels_seen(given, two_columns(values)) is not None


def _by_label_and_score(spec: Spec, trial: Trial, outputs: Outputs) -> Spec:
    """Complete a classifier of two classes that has a score and no probability: the graph itself must name the class."""
    tensor = spec.outputs["probability"]
    if not _names_rows(trial, outputs):
        shape = list(trial.output(tensor).shape)
        raise InvalidModel(
            f'model output "{tensor}" has shape {shape} for {trial.rows} rows, expected [batch, classes] with two or more classes',
            hint='Name a probability of the second class with the key "classificationProbOutput"; a score becomes one by '
            '"normalizeProb": "softmax". A model that predicts a number has the function "regression".',
        )
    assert outputs.label is not None
    if spec.labels is not None:
        _check_own(spec.labels, trial, outputs)
    text = outputs.types[outputs.label] == TensorProto.STRING
    # NaN in the score tells of a row without an answer; the label would be one of the two.
    roles = {"label": outputs.label, "score": tensor}
    return replace(spec, outputs=roles, labels=None, result="text" if text else "numeric")


def _by_label_alone(spec: Spec, trial: Trial, outputs: Outputs) -> Spec:
    """Complete a classifier that tells labels and no probabilities."""
    tensor = spec.outputs["label"]
    if spec.labels is not None:
        raise InvalidParameter(
            'metadata key "labels" needs an output with a probability for each class',
            hint='Name it with the key "classificationProbOutput".',
        )
    trial.single("label")
    return replace(spec, result="text" if outputs.types[tensor] == TensorProto.STRING else "numeric")


def _names_rows(trial: Trial, outputs: Outputs) -> bool:
    """Tell whether the graph has an output with the label of each row."""
    return outputs.label is not None and np.size(trial.output(outputs.label)) == trial.rows


def _own_labels(
    spec: Spec, trial: Trial, checked: CheckedModel, outputs: Outputs, classes: int
) -> tuple[Label, ...] | None:
    """Return the labels that the graph itself tells, None when it tells none.

    An output with an entry for each class holds them. One with an entry for each row is scikit-learn's prediction: then the
    labels stand somewhere in the graph, and those are right that agree with it. Raise InvalidParameter when none are found: to
    number the classes would contradict the model.
    """
    if outputs.class_labels is not None:
        return outputs.class_labels
    if outputs.label is None:
        return None
    given = np.asarray(trial.output(outputs.label)).ravel()
    if _names_rows(trial, outputs):
        roles = {**spec.outputs, "label": outputs.label}
        labels = labels_of(checked.model, roles, given.tolist(), trial.output(roles["probability"]))
        if labels is not None:
            return labels
        raise InvalidParameter(
            f'model output "{outputs.label}" does not tell which label belongs to which class',
            hint='Add the key "labels" to the metadata, in the order of the probabilities.',
        )
    if given.size != classes and outputs.label_named:
        raise InvalidModel(
            f'model output "{outputs.label}" has {given.size} labels, "{spec.outputs["probability"]}" has {classes} classes'
        )
    return tuple(given.tolist()) if given.size == classes else None
