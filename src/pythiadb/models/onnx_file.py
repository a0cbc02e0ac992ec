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
from pythiadb.models.labels import labels_of
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
    return Package(_complete(spec, files[GRAPH], checked, outputs), files, meta.raw)


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


def _complete(spec: Spec, graph: Path, checked: CheckedModel, outputs: Outputs) -> Spec:
    """Run the graph with made-up rows and return the specification with what that shows: dimensions, labels."""
    trial = Trial(graph, spec, checked.model)
    check_defaults(spec, trial.tensors)
    if spec.function == "embedding":
        return replace(spec, dimensions=trial.width("embedding"))
    if spec.function == "regression":
        trial.single("regression")
        return spec
    if "label" in spec.outputs:
        return _by_label_alone(spec, trial, outputs)
    widths = {role: trial.width(role) for role in spec.outputs}
    if len(set(widths.values())) > 1:
        raise InvalidModel(
            f"model outputs disagree on the number of clusters: {', '.join(map(str, widths.values()))}"
        )
    classes = next(iter(widths.values()))
    labels = spec.labels
    if labels is None and spec.function == "classification":
        labels = _own_labels(spec, trial, checked, outputs, classes)
        if labels is not None and _names_rows(trial, outputs):
            assert outputs.label is not None
            # What the model answers need not be the most probable class: support vectors vote on their own.
            spec = replace(spec, outputs={**spec.outputs, "label": outputs.label})
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
    labels stand somewhere in the graph, and those are right that agree with it.
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
        if outputs.label_named:
            raise InvalidParameter(
                f'model output "{outputs.label}" does not tell which label belongs to which class',
                hint='Add the key "labels" to the metadata, in the order of the probabilities.',
            )
        return None
    if given.size != classes and outputs.label_named:
        raise InvalidModel(
            f'model output "{outputs.label}" has {given.size} labels, "{spec.outputs["probability"]}" has {classes} classes'
        )
    return tuple(given.tolist()) if given.size == classes else None
