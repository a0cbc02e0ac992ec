"""Two-tower folders: from weights against a forward pass in numpy, from ready graphs against bare ONNX Runtime."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from numpy_clip import POSITIONS, SIDE, SPACE, Clip, clip_config, clip_weights
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer as Bare

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter
from pythiadb.models.folder import package_from_folder, packages_from_folder
from pythiadb.models.package import Attribute, Package
from pythiadb.models.probe import probe
from pythiadb.models.session import open_model

FIRST, LAST = "<|startoftext|>", "<|endoftext|>"
TEXTS = ["a cat", "cat", "A  DOG!", "", "cat dog " * 30, "zebra 1234"]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
    "resample": 3,
    "image_mean": MEAN,
    "image_std": STD,
}


def write_vocabulary(folder: Path) -> int:
    """Write CLIP's older vocabulary files, and return the number of tokens."""
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    merges = ["c a", "ca t</w>", "d o", "do g</w>"]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(m.replace(" ", "") for m in merges),
        FIRST,
        LAST,
    ]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return len(tokens)


def clip_folder(folder: Path, **changes: Any) -> dict[str, NDArray[np.float32]]:
    folder.mkdir()
    size = write_vocabulary(folder)
    weights = clip_weights(size)
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(clip_config(size - 1, **changes)))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return weights


def ids_of(package: Package, texts: list[str]) -> list[list[int]]:
    tokenizer = Bare.from_file(str(package.files["tokenizer.json"]))
    tokenizer.no_padding()
    tokenizer.enable_truncation(POSITIONS)
    return [list(encoding.ids) for encoding in tokenizer.encode_batch(texts)]


def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    made = []
    for size in ((SIDE, SIDE), (40, 20), (20, 47)):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(stream, format="PNG")
        made.append(stream.getvalue())
    return made


def pixels(data: bytes) -> NDArray[np.float64]:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    short = min(width, height)
    size = (int(SIDE * width / short), int(SIDE * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    values = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)), np.float64) / 255
    return ((values - MEAN) / STD).transpose(2, 0, 1)


def vectors(package: Package, inputs: list[Any]) -> NDArray[np.float32]:
    model = open_model(package.files, package.spec, threads=1)
    return np.concatenate(model.run(model.prepare([{"DATA": value} for value in inputs])))


def test_one_folder_is_two_models_in_one_space(tmp_path: Path, work: Path) -> None:
    weights = clip_folder(tmp_path / "m")
    packages = packages_from_folder(tmp_path / "m", work)
    assert set(packages) == {"_text", "_image"}
    truth = Clip(weights)
    end = len(weights["text_model.embeddings.token_embedding.weight"]) - 1
    texts, images = vectors(packages["_text"], TEXTS), vectors(packages["_image"], pictures())
    expected = np.stack([truth.text(ids, end) for ids in ids_of(packages["_text"], TEXTS)])
    seen = np.stack([truth.image(pixels(data)) for data in pictures()])
    assert texts.shape[1] == images.shape[1] == SPACE
    assert np.abs(texts - expected).max() < 1e-5
    assert np.abs(images - seen).max() < 1e-5
    assert np.abs(texts @ images.T - expected @ seen.T).max() < 1e-5
    for package in packages.values():
        probe(package)
    kinds = {name: package.spec.attributes for name, package in packages.items()}
    assert kinds == {"_text": (Attribute("DATA", "text"),), "_image": (Attribute("DATA", "blob"),)}


def test_tokens_are_those_of_clip(tmp_path: Path, work: Path) -> None:
    clip_folder(tmp_path / "m")
    package = packages_from_folder(tmp_path / "m", work)["_text"]
    tokenizer = Bare.from_file(str(package.files["tokenizer.json"]))
    assert tokenizer.encode("  A Cat's DOG 12").tokens == [
        FIRST, "a</w>", "cat</w>", "'", "s</w>", "dog</w>", "1</w>", "2</w>", LAST,
    ]  # fmt: skip


def test_the_longest_text_can_be_set(tmp_path: Path, work: Path) -> None:
    weights = clip_folder(tmp_path / "m")
    package = packages_from_folder(tmp_path / "m", work, {"function": "embedding", "maxSequenceLength": 4})[
        "_text"
    ]
    end = len(weights["text_model.embeddings.token_embedding.weight"]) - 1
    tokenizer = Bare.from_file(str(package.files["tokenizer.json"]))
    tokenizer.enable_truncation(4)
    expected = Clip(weights).text(tokenizer.encode(TEXTS[4]).ids, end)
    assert np.abs(vectors(package, [TEXTS[4]])[0] - expected).max() < 1e-5


def test_old_configurations_end_a_text_at_its_largest_id(tmp_path: Path, work: Path) -> None:
    weights = clip_folder(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    package = packages_from_folder(tmp_path / "m", work)["_text"]
    end = len(weights["text_model.embeddings.token_embedding.weight"]) - 1
    expected = np.stack([Clip(weights).text(ids, end) for ids in ids_of(package, TEXTS)])
    assert np.abs(vectors(package, TEXTS) - expected).max() < 1e-5


def test_a_folder_of_two_models_is_not_one(tmp_path: Path, work: Path) -> None:
    clip_folder(tmp_path / "m")
    with pytest.raises(InvalidParameter, match='model folder "m" makes 2 models'):
        package_from_folder(tmp_path / "m", work)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_type": "siglip"}, FeatureNotSupported, 'model type "siglip" is not supported'),
        ({"projection_dim": 0}, InvalidModel, '"projection_dim"'),
        (
            {"projection_dim": 11},
            InvalidModel,
            r'"text_projection.weight" has shape \[10, 12\], expected \[11, 12\]',
        ),
        (
            {"text_config": {"hidden_act": "swish"}},
            FeatureNotSupported,
            'activation "swish" is not supported',
        ),
        ({"text_config": {"num_attention_heads": 7}}, InvalidModel, "is not a multiple of 7 attention heads"),
        ({"text_config": {"layer_norm_eps": 3}}, InvalidModel, '"layer_norm_eps"'),
    ],
)
def test_two_towers_that_are_refused(
    tmp_path: Path, work: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    clip_folder(tmp_path / "m", **changes)
    with pytest.raises(error, match=message):
        packages_from_folder(tmp_path / "m", work)


def tower(
    name: str, inputs: list[onnx.ValueInfoProto], nodes: list[onnx.NodeProto], rows: int
) -> onnx.ModelProto:
    """Return a ready graph that ends in `projected` rows times a random matrix."""
    matrix = np.random.default_rng(rows).normal(size=(rows, 5)).astype(np.float32)
    nodes = [*nodes, helper.make_node("MatMul", ["projected", "matrix"], [name])]
    made = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 5])
    table = np.random.default_rng(1).normal(size=(600, 4)).astype(np.float32)
    weights = [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(table, "table")]
    graph = helper.make_graph(nodes, name, inputs, [made], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ready_towers(folder: Path) -> None:
    folder.mkdir()
    write_vocabulary(folder)
    config = {"model_type": "clip", "text_config": {"max_position_embeddings": POSITIONS}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    tokens = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])]
    pooled = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMax", ["rows"], ["projected"], axes=[1], keepdims=0),
    ]
    onnx.save_model(tower("text_embeds", tokens, pooled, 4), folder / "text_model.onnx")
    taken = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])]
    means = [
        helper.make_node("GlobalAveragePool", ["pixel_values"], ["means"]),
        helper.make_node("Flatten", ["means"], ["projected"], axis=1),
    ]
    onnx.save_model(tower("image_embeds", taken, means, 3), folder / "vision_model.onnx")


def test_ready_graphs_of_two_towers(tmp_path: Path, work: Path) -> None:
    ready_towers(tmp_path / "m")
    packages = packages_from_folder(tmp_path / "m", work)
    text, image = packages["_text"], packages["_image"]
    session = ort.InferenceSession(tmp_path / "m" / "text_model.onnx")
    for value, ids in zip(TEXTS[:4], ids_of(text, TEXTS[:4]), strict=True):
        (row,) = session.run(None, {"input_ids": np.array([ids])})[0]
        assert np.abs(vectors(text, [value])[0] - row / np.linalg.norm(row)).max() < 1e-6
    session = ort.InferenceSession(tmp_path / "m" / "vision_model.onnx")
    for data in pictures():
        (row,) = session.run(None, {"pixel_values": pixels(data)[np.newaxis].astype(np.float32)})[0]
        assert np.abs(vectors(image, [data])[0] - row / np.linalg.norm(row)).max() < 1e-5


def test_ready_towers_that_do_not_fit(tmp_path: Path, work: Path) -> None:
    ready_towers(tmp_path / "m")
    path = tmp_path / "m" / "vision_model.onnx"
    model = onnx.load(path)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "other"
    onnx.save_model(model, path)
    with pytest.raises(InvalidModel, match=r'"vision_model.onnx" has no output image_embeds or embedding'):
        packages_from_folder(tmp_path / "m", work)
