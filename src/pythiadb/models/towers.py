"""A two-tower folder with ready graphs, text_model.onnx and vision_model.onnx: two models in one space."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.clip import IMAGE, TEXT, folder, image_spec, text_spec
from pythiadb.models.image_folder import fit_input, pixel_input, read_preprocessor, sample
from pythiadb.models.package import GRAPH, TOKENIZER, Package
from pythiadb.models.ready import (
    TOKEN_SOURCES,
    added_nodes,
    extend_graph,
    find_graph,
    graph_feed,
    token_inputs,
)
from pythiadb.models.session import measure_dimensions
from pythiadb.models.source import Source
from pythiadb.models.text_folder import max_tokens
from pythiadb.models.tokenizing import Tokenizer
from pythiadb.models.validate import CheckedModel, check_model_file, element_type
from pythiadb.models.vocabulary import tokenizer_file

TEXT_GRAPH, IMAGE_GRAPH = "text_model.onnx", "vision_model.onnx"
_ADDED = "pythia.embedding"
_OUTPUTS = {TEXT: ("text_embeds", "embedding"), IMAGE: ("image_embeds", "embedding")}
_POSITIONS = 77  # CLIP's, where no configuration says otherwise


def has_towers(source: Source) -> bool:
    """Tell whether the folder holds two ready graphs."""
    return all(find_graph(source.folder, name) for name in (TEXT_GRAPH, IMAGE_GRAPH))


def tower_packages(source: Source) -> dict[str, Package]:
    """Return the text and the picture model of a folder with ready graphs, by the suffixes of their names.

    Their outputs `text_embeds` and `image_embeds` are scaled to length 1. Raise InvalidModel for graphs that do not fit together,
    FeatureNotSupported for families that fill texts up to a fixed length.
    """
    if str(source.config.get("model_type", "")).startswith("siglip"):
        raise FeatureNotSupported(
            f'model type "{source.config["model_type"]}" is not supported',
            detail="Its text model needs texts filled up to a fixed length.",
        )
    packages = {TEXT: _text(source), IMAGE: _image(source)}
    lengths = {package.spec.dimensions for package in packages.values()}
    if len(lengths) > 1:
        raise InvalidModel(f"the two models give vectors of different lengths: {sorted(map(str, lengths))}")
    return packages


def _text(source: Source) -> Package:
    path, checked = _checked(source, TEXT_GRAPH)
    inputs = token_inputs(checked.model, needed=("input_ids",))
    part = source.config.get("text_config") or {}
    limit = max_tokens(source, part.get("max_position_embeddings", _POSITIONS))
    tokenizer = tokenizer_file(source)
    Tokenizer(tokenizer, limit)  # checks that the limit leaves room
    files = _scaled(source, path, checked, TEXT)
    width = measure_dimensions(files[GRAPH], graph_feed(checked.model, inputs), _ADDED)
    spec = text_spec(source, tuple((name, TOKEN_SOURCES[name]) for name in inputs), _ADDED, width, limit)
    return source.package(
        spec, {**files, TOKENIZER: tokenizer}, {"normalization": True, "maxSequenceLength": limit}
    )


def _image(source: Source) -> Package:
    path, checked = _checked(source, IMAGE_GRAPH)
    pixels = pixel_input(checked.model)
    steps = fit_input(read_preprocessor(source), pixels)
    files = _scaled(source, path, checked, IMAGE)
    width = measure_dimensions(files[GRAPH], sample(pixels, steps), _ADDED)
    return source.package(
        image_spec(source, pixels.name, steps, _ADDED, width), files, {"normalization": True}
    )


def _checked(source: Source, name: str) -> tuple[Path, CheckedModel]:
    path = find_graph(source.folder, name)
    assert path is not None
    return path, check_model_file(path)


def _scaled(source: Source, path: Path, checked: CheckedModel, suffix: str) -> dict[str, Path]:
    """Add the scaling to length 1 and return the files."""
    floats = {item.name for item in checked.model.graph.output if element_type(item) == TensorProto.FLOAT}
    output = next((name for name in _OUTPUTS[suffix] if name in floats), None)
    if output is None:
        raise InvalidModel(f'"{path.name}" has no output {" or ".join(_OUTPUTS[suffix])}')
    graph = added_nodes(checked.model)
    graph.node("LpNormalization", output, output=_ADDED, axis=-1, p=2)
    return extend_graph(checked, path, folder(source, suffix), graph, _ADDED)
