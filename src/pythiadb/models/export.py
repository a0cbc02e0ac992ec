"""A package out of the database again: as a folder that loads back, or as one ONNX file with the tokenizer inside.

The second is Oracle's "augmented" form: a string tensor of one row "input", a tensor "embedding", and an operator of the
onnxruntime-extensions package between them. WordPiece becomes BertTokenizer, byte-level and Llama-like BPE become
HfJsonTokenizer; special tokens and the cut at the longest input are plain nodes. The operators are not the tokenizers library,
so the file is compared with the package on some texts before it is accepted: see models/agreement.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.agreement import differing_kinds, first_difference, opened
from pythiadb.models.building import GraphBuilder
from pythiadb.models.package import GRAPH, Package, Spec, safe_name
from pythiadb.models.pooling import read_json
from pythiadb.models.tokenizing import load_tokenizer

MANIFEST = "pythia.json"
EXTENSIONS = "ai.onnx.contrib"
INPUT, OUTPUT = "input", "embedding"
_LEAST_OPSET = 13
_LARGE = 1_900_000_000  # bytes of weights; a protobuf message cannot pass 2 GiB


def export_files(package: Package, folder: Path) -> None:
    """Write the files of a package and its manifest into a folder, which `pythia model load` takes back.

    Raise InvalidParameter when the folder exists and is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InvalidParameter(f'folder "{folder}" is not empty')
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in package.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    manifest = {"spec": package.spec.to_json(), "metadata": package.metadata, "files": sorted(package.files)}
    (folder / MANIFEST).write_text(
        json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def read_exported(folder: Path) -> Package:
    """Return the package of a folder that `export_files` wrote; raise InvalidModel when it is malformed or incomplete."""
    manifest = read_json(folder / MANIFEST)
    names, metadata = manifest.get("files"), manifest.get("metadata")
    if not isinstance(names, list) or not isinstance(metadata, dict):
        raise InvalidModel(f'"{MANIFEST}" lists no files or no metadata')
    for name in names:
        if not isinstance(name, str) or not safe_name(name):
            raise InvalidModel(f'"{MANIFEST}" names a file outside its folder: {name!r}')
        if not (folder / name).is_file():
            raise InvalidModel(f'model package lacks the file "{name}"')
    return Package(Spec.from_json(manifest.get("spec") or {}), {n: folder / n for n in names}, metadata)


def export_augmented(package: Package, target: Path) -> tuple[str, ...]:
    """Write an embedding package as one ONNX file that takes text itself; return the kinds of text that it reads differently.

    Weights over about 2 GB lie in a second file, `target`.data. Raise FeatureNotSupported for a model or tokenizer that has no such
    form, InvalidParameter when the file exists.
    """
    spec = package.spec
    if target.exists():
        raise InvalidParameter(f'file "{target}" exists')
    if spec.function != "embedding" or spec.tokenizer is None or spec.is_pair:
        raise FeatureNotSupported(
            "only models that embed a text with a tokenizer have an augmented form",
            hint="Without --augmented the files of any model are written.",
        )
    model = compose.add_prefix(onnx.load(package.files[GRAPH]), "model.")
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)
    if opset < _LEAST_OPSET:
        raise FeatureNotSupported(
            f"a graph of opset {opset} cannot be augmented", detail=f"It needs {_LEAST_OPSET}."
        )
    graph = GraphBuilder("tokenizer.", opset)
    ids = _tokens(graph, package)
    for entry in spec.inputs:
        _feed(graph, ids, entry.source, _type(model, f"model.{entry.tensor}"), f"model.{entry.tensor}")
    last = helper.make_node("Identity", [f"model.{spec.outputs['embedding']}"], [OUTPUT])
    nodes = [*graph.nodes, *model.graph.node, last]
    taken = helper.make_tensor_value_info(INPUT, TensorProto.STRING, [1])
    given = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", spec.dimensions])
    weights = [*graph.weights, *model.graph.initializer]
    body = helper.make_graph(
        nodes, model.graph.name or "augmented", [taken], [given], weights, value_info=model.graph.value_info,
        sparse_initializer=model.graph.sparse_initializer,
    )  # fmt: skip
    opsets = [*model.opset_import, helper.make_opsetid(EXTENSIONS, 1)]
    made = helper.make_model(
        body,
        opset_imports=opsets,
        ir_version=model.ir_version,
        producer_name="pythiadb",
        functions=model.functions,
    )
    _save(made, target)
    return _compare(package, target)


def _tokens(graph: GraphBuilder, package: Package) -> str:
    """Add the nodes from the string to its token ids with special tokens, int64 [1, tokens], cut as the package cuts."""
    spec = package.spec
    assert spec.tokenizer is not None
    assert spec.max_tokens is not None
    path = package.files[spec.tokenizer]
    settings = json.loads(path.read_text(encoding="utf-8"))
    text = INPUT
    if spec.prefix:
        prefix = graph.weight("prefix", np.array([spec.prefix.encode()], dtype=object))
        text = graph.node("StringConcat", prefix, INPUT, domain=EXTENSIONS)
    first, last = _special_tokens(path)
    room = spec.max_tokens - len(first) - len(last)
    body = graph.node("Slice", _tokenizer(graph, text, settings), graph.integers(0), graph.integers(room))
    parts = (
        [graph.integers(*part) for part in (first,) if part]
        + [body]
        + [graph.integers(*part) for part in (last,) if part]
    )
    ids = graph.node("Concat", *parts, axis=0) if len(parts) > 1 else body
    return graph.node("Reshape", ids, graph.integers(1, -1))


def _special_tokens(path: Path) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text."""
    backend = load_tokenizer(path)
    backend.no_truncation()
    backend.no_padding()
    inner, whole = (backend.encode("a", add_special_tokens=special).ids for special in (False, True))
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return whole[:start], whole[start + len(inner) :]
    raise _unsupported("its special tokens do not surround the text")


def _tokenizer(graph: GraphBuilder, text: str, settings: Mapping[str, Any]) -> str:
    """Add the tokenizer operator and return the ids without special tokens, int64 [tokens]."""
    model: Mapping[str, Any] = settings.get("model") or {}
    kind = model.get("type")
    if kind == "WordPiece":
        return _bert_tokenizer(graph, text, settings, model)
    if kind == "BPE" and not model.get("end_of_word_suffix"):
        return _json_tokenizer(graph, text, settings, model)
    raise _unsupported(f"the operators have no equal of {'CLIP' if kind == 'BPE' else kind}")


def _bert_tokenizer(
    graph: GraphBuilder, text: str, settings: Mapping[str, Any], model: Mapping[str, Any]
) -> str:
    normal = settings.get("normalizer") or {}
    if (
        normal.get("type") != "BertNormalizer"
        or (settings.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer"
    ):
        raise _unsupported("its text is not prepared as BERT's")
    lower = bool(normal.get("lowercase"))
    accents = normal.get("strip_accents")
    unknown = str(model.get("unk_token", "[UNK]"))
    node = graph.node(
        "BertTokenizer", text,
        domain=EXTENSIONS,
        vocab_file="\n".join(_by_id(model["vocab"])),
        do_lower_case=int(lower),
        strip_accents=int(lower if accents is None else bool(accents)),
        tokenize_chinese_chars=int(bool(normal.get("handle_chinese_chars", True))),
        suffix_indicator=str(model.get("continuing_subword_prefix", "##")),
        # Its own special tokens are cut off again; they only have to exist.
        **{f"{name}_token": unknown for name in ("unk", "sep", "cls", "pad", "mask")},
    )  # fmt: skip
    # The operator has three outputs; only the ids are used.
    graph.nodes[-1].output.extend([f"{node}.types", f"{node}.mask"])
    return graph.node("Slice", node, graph.integers(1), graph.integers(-1))


def _by_id(vocabulary: Mapping[str, int]) -> list[str]:
    tokens = {number: token for token, number in vocabulary.items()}
    # The operator numbers the lines and skips empty ones, so a gap needs a line that no text can match.
    return [tokens.get(number) or f"\x01{number}" for number in range(max(tokens) + 1)]


def _json_tokenizer(
    graph: GraphBuilder, text: str, settings: Mapping[str, Any], model: Mapping[str, Any]
) -> str:
    bare = {**settings, "post_processor": None, "truncation": None, "padding": None}
    names = {f"{name}_token": str(model.get("unk_token") or "") for name in ("unk", "bos", "eos")}
    config = {
        "tokenizer_class": "LlamaTokenizer" if model.get("byte_fallback") else "GPT2Tokenizer",
        "add_bos_token": False,
        **names,
    }
    ids = graph.node(
        "HfJsonTokenizer", text,
        domain=EXTENSIONS,
        tokenizer_vocab=json.dumps(bare, ensure_ascii=False),
        tokenizer_config=json.dumps(config),
    )  # fmt: skip
    return graph.node("Reshape", ids, graph.integers(-1))


def _feed(graph: GraphBuilder, ids: str, source: str, kind: int, target: str) -> None:
    """Add the node that makes an input of the model, of its type, out of the ids."""
    if source == "ids":
        graph.node("Cast", ids, output=target, to=kind)
        return
    value = helper.make_tensor("value", kind, [1], [int(source == "mask")])
    graph.node("ConstantOfShape", graph.node("Shape", ids), output=target, value=value)


def _type(model: onnx.ModelProto, name: str) -> int:
    return int(next(item.type.tensor_type.elem_type for item in model.graph.input if item.name == name))


def _save(model: onnx.ModelProto, target: Path) -> None:
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = _data_file(target)
    data.unlink(missing_ok=True)  # onnx appends to a file that is there
    onnx.save_model(model, target, save_as_external_data=size > _LARGE, location=data.name)


def _data_file(target: Path) -> Path:
    return target.with_name(target.name + ".data")


def _compare(package: Package, target: Path) -> tuple[str, ...]:
    """Return the kinds of text that the file reads differently from the package.

    Raise FeatureNotSupported, and remove the file, when these are not only rare ones.
    """
    from pythiadb.models.onnx_file import package_from_onnx  # it imports what this module's users need not

    made, given = opened(package_from_onnx(target, target.parent)), opened(package)
    text = first_difference(made, given)
    if text is not None:
        target.unlink()
        _data_file(target).unlink(missing_ok=True)
        raise _unsupported(f'the operator reads a text like "{text[:40]}" differently')
    return differing_kinds(made, given)


def _unsupported(reason: str) -> FeatureNotSupported:
    return FeatureNotSupported(
        "the model's tokenizer has no equal among the operators of onnxruntime-extensions",
        detail=f"{reason[:1].upper()}{reason[1:]}.",
        hint="Without --augmented the model's files are written, with tokenizer.json.",
    )
