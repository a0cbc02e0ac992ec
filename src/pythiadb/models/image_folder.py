"""A package from a folder with a picture model: preprocessor_config.json and a ready graph with a pixel input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.building import GraphBuilder
from pythiadb.models.heads import LOGITS, read_labels
from pythiadb.models.images import COLORS, LAYOUTS, RESAMPLINGS, Preprocessing, read_params
from pythiadb.models.package import GRAPH, Attribute, Input, Package, Spec
from pythiadb.models.ready import added_nodes, extend_graph, open_graph, score_output, stored_files
from pythiadb.models.session import measure_dimensions
from pythiadb.models.source import Source, whole
from pythiadb.models.text_folder import result_type
from pythiadb.models.validate import CheckedModel, element_type, graph_inputs, shape_of

PREPROCESSOR = "preprocessor_config.json"
_EMBEDDINGS = ("image_embeds", "embedding", "sentence_embedding", "pooler_output", "last_hidden_state")
_ADDED = "pythia.embedding"
_TYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}
# Processors whose "size" given as one number means the shorter edge; for the others it means both edges.
_SHORTEST_EDGE = (
    "CLIP",
    "ChineseCLIP",
    "ConvNext",
    "Bit",
    "Levit",
    "MobileNet",
    "EfficientFormer",
    "PoolFormer",
)


def image_package(source: Source) -> Package:
    """Return the package of a picture folder: classification when config.json names an image classifier, else embedding.

    Raise InvalidModel for a folder that is incomplete or does not fit together, FeatureNotSupported for preprocessing that is not
    served, InvalidParameter for metadata that do not fit.
    """
    path, checked = open_graph(source)
    pixels = pixel_input(checked.model)
    steps = fit_input(read_preprocessor(source), pixels)
    if _is_classifier(source, checked.model):
        return _classifier(source, path, checked, (pixels, steps))
    if source.function not in (None, "embedding"):
        raise FeatureNotSupported(f'function "{source.function}" cannot be made out of a picture model')
    output, facts, graph = _embedding_output(source, checked.model)
    files = stored_files(checked, path)
    if graph.nodes:
        files = extend_graph(checked, path, source.work, graph, output)
    spec = picture_spec(
        source, pixels.name, steps,
        function="embedding",
        outputs={"embedding": output},
        result="vector",
        dimensions=measure_dimensions(files[GRAPH], sample(pixels, steps), output),
    )  # fmt: skip
    return source.package(spec, files, facts)


def picture_spec(source: Source, tensor: str, steps: Preprocessing, **rest: Any) -> Spec:
    """Return the specification of a model that takes one picture."""
    (name,) = source.attributes(("DATA",), 1)
    return Spec(
        inputs=(Input(tensor, "image", (name,)),),
        attributes=(Attribute(name, "blob"),),
        image=steps.to_json(),
        **rest,
    )


def read_preprocessor(source: Source) -> Preprocessing:
    """Read preprocessor_config.json; what it leaves out is as in the processors' own defaults."""
    config = source.optional(PREPROCESSOR)
    if not config:
        raise InvalidModel(f'model folder "{source.folder.name}" has no {PREPROCESSOR}')
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    resize = _size(config, kind) if config.get("do_resize", True) else None
    crop = None
    if config.get("do_center_crop", "crop_size" in config):
        crop = _pair(config.get("crop_size", config.get("size")), "crop_size")
    if kind.startswith("ConvNext") and isinstance(resize, int):
        resize, crop = _convnext(config, resize)
    normal = config.get("do_normalize", "image_mean" in config)
    color = "BGR" if config.get("do_flip_channel_order") else "L" if config.get("do_grayscale") else "RGB"
    scaled = config.get("do_rescale", True)
    std = _channels(config, "image_std", color) if normal else None
    if std is not None and config.get("include_top"):  # EfficientNet divides twice
        std = tuple(value**2 for value in std)
    values: dict[str, Any] = {
        "resize": resize,
        "crop": crop,
        "resample": _resampling(config.get("resample", 2)),
        "scale": config.get("rescale_factor", 1 / 255) if scaled else 1,
        "offset": -127.5 * config.get("rescale_factor", 1 / 255)
        if scaled and config.get("rescale_offset")
        else 0,
        "mean": _channels(config, "image_mean", color) if normal else None,
        "std": std,
        "color": color,
    }
    return read_params(values)


def pixel_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the graph's only input, which must be a picture tensor of rank 4."""
    inputs = graph_inputs(model)
    if len(inputs) != 1 or len(shape_of(inputs[0]) or [0] * 4) != 4 or element_type(inputs[0]) not in _TYPES:
        names = ", ".join(item.name for item in inputs)
        raise InvalidModel(
            "model graph does not take one picture",
            detail=f"Its inputs are {names}; expected is one tensor of float32 or uint8 with four dimensions.",
        )
    return inputs[0]


def fit_input(steps: Preprocessing, pixels: onnx.ValueInfoProto) -> Preprocessing:
    """Return the steps with the layout and type that the graph's input has; raise InvalidModel when the sizes differ."""
    shape = shape_of(pixels) or [None] * 4
    channels = COLORS[steps.color]
    layout = LAYOUTS[1] if shape[1] != channels and shape[3] == channels else LAYOUTS[0]
    values = steps.to_json() | {"layout": layout, "type": _TYPES[element_type(pixels)]}
    made = read_params(values)
    if any(wanted not in (None, found) for wanted, found in zip(shape[1:], made.shape, strict=True)):
        expected = ", ".join("?" if size is None else str(size) for size in shape)
        raise InvalidModel(
            f'tensor "{pixels.name}" has shape [{expected}], {PREPROCESSOR} makes pictures of {list(made.shape)}'
        )
    return made


def sample(pixels: onnx.ValueInfoProto, steps: Preprocessing) -> dict[str, np.ndarray[Any, Any]]:
    """Return a feed of one grey picture."""
    return {pixels.name: np.full((1, *steps.shape), 1, steps.type)}


def _is_classifier(source: Source, model: onnx.ModelProto) -> bool:
    if source.function is not None:
        return source.function == "classification"
    names = source.config.get("architectures") or []
    named = any(str(name).endswith("ForImageClassification") for name in names)
    outputs = {item.name for item in model.graph.output}
    return named or (LOGITS in outputs and read_labels(source.config) is not None)


def _classifier(
    source: Source, path: Path, checked: CheckedModel, taken: tuple[onnx.ValueInfoProto, Preprocessing]
) -> Package:
    output = score_output(checked.model, source.given.get("classificationProbOutput"))
    scores = measure_dimensions(path, sample(*taken), output)
    given = source.given.get("labels")
    labels = tuple(given) if given else read_labels(source.config)
    if labels is not None and len(labels) != scores:
        raise InvalidModel(f'model output "{output}" has {scores} columns, there are {len(labels)} labels')
    # What does not come out of a softmax are logits.
    producer = next((node.op_type for node in checked.model.graph.node if output in node.output), "")
    spec = picture_spec(
        source, taken[0].name, taken[1],
        function="classification",
        outputs={"probability": output},
        result="numeric" if labels is None else result_type(labels),
        labels=labels,
        normalize_prob=source.given.get("normalizeProb", "none" if producer == "Softmax" else "softmax"),
    )  # fmt: skip
    return source.package(spec, stored_files(checked, path), {})


def _embedding_output(source: Source, model: onnx.ModelProto) -> tuple[str, dict[str, Any], GraphBuilder]:
    """Return the output's name, facts about it, and the nodes that make it, none where the graph ends in an embedding.

    Vectors for each patch are pooled as the metadata say, by default with the first, the class token.
    """
    outputs = {item.name: item for item in model.graph.output if element_type(item) == TensorProto.FLOAT}
    named = source.given.get("embeddingOutput")
    if named is not None and named not in outputs:
        raise InvalidParameter(
            f'"{named}" in the JSON metadata is not a model output',
            hint=f"The model has the float32 outputs {', '.join(outputs)}.",
        )
    chosen = named or next((name for name in _EMBEDDINGS if name in outputs), next(iter(outputs), None))
    if chosen is None or (chosen not in (named, *_EMBEDDINGS) and len(outputs) > 1):
        raise InvalidModel(
            "model graph does not tell which output is the embedding",
            hint='Name it in the metadata with the key "embeddingOutput".',
        )
    graph = added_nodes(model)
    facts: dict[str, Any] = {}
    value, rank = chosen, len(shape_of(outputs[chosen]) or [0, 0])
    if rank == 3:
        mode = source.given.get("pooling", "cls")
        facts = {"pooling": mode} | ({} if "pooling" in source.given else {"poolingAssumed": True})
        value = _pool_patches(graph, value, mode)
    elif rank == 4:  # feature maps, or a pooled vector with two dimensions of 1
        value = graph.node("Flatten", graph.node("GlobalAveragePool", value), axis=1)
    if source.given.get("normalization"):
        value = graph.node("LpNormalization", value, axis=-1, p=2)
    if value == chosen:
        return chosen, facts, graph
    return graph.node("Identity", value, output=_ADDED), facts, graph


def _pool_patches(graph: GraphBuilder, patches: str, mode: str) -> str:
    if mode == "cls":
        return graph.node("Gather", patches, graph.integer(0), axis=1)
    if mode != "mean":
        raise FeatureNotSupported(
            f'pooling "{mode}" of patches is not supported', hint="Known poolings are cls, mean."
        )
    columns = graph.node("Transpose", patches, perm=[0, 2, 1])
    wide = (
        graph.node("Unsqueeze", columns, graph.integers(-1))
        if graph.opset >= 13
        else graph.node("Unsqueeze", columns, axes=[3])
    )
    return graph.node("Flatten", graph.node("GlobalAveragePool", wide), axis=1)


def _size(config: Mapping[str, Any], kind: str) -> tuple[int, int] | int:
    size = config.get("size", 224)
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return int(_side(size["shortest_edge"], "size"))
    if isinstance(size, int) and kind.startswith(_SHORTEST_EDGE):
        return int(_side(size, "size"))
    return _pair(size, "size")


def _pair(size: object, key: str) -> tuple[int, int]:
    if isinstance(size, Mapping) and set(size) >= {"height", "width"}:
        return _side(size["height"], key), _side(size["width"], key)
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return (_side(size["shortest_edge"], key),) * 2
    if isinstance(size, list | tuple) and len(size) == 2:
        return _side(size[0], key), _side(size[1], key)
    if isinstance(size, int):
        return (_side(size, key),) * 2
    raise FeatureNotSupported(f'"{key}" of {PREPROCESSOR} is not supported: {size!r}')


def _side(value: object, key: str) -> int:
    return whole(value, f'{key}" of "{PREPROCESSOR}')


def _convnext(config: Mapping[str, Any], edge: int) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    """Return what ConvNeXt's processor does: large pictures are squeezed into a square, small ones lose their border."""
    if edge >= 384:
        return (edge, edge), None
    return int(edge / config.get("crop_pct", 224 / 256)), (edge, edge)


def _resampling(value: object) -> str:
    if value not in RESAMPLINGS:
        raise InvalidModel(f'invalid value for "resample" of "{PREPROCESSOR}": {value!r}')
    return RESAMPLINGS[int(str(value))]


def _channels(config: Mapping[str, Any], key: str, color: str) -> tuple[float, ...]:
    value = config.get(key)
    if isinstance(value, int | float):
        return (float(value),) * COLORS[color]
    if not isinstance(value, list):
        raise InvalidModel(f'invalid value for "{key}" of "{PREPROCESSOR}": {value!r}')
    return tuple(value)
