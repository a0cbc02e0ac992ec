"""Preprocessing of pictures against Pillow and numpy by hand, and pictures that are refused."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from pythiadb.errors import FeatureNotSupported, InvalidModel, InvalidParameter, LimitExceeded
from pythiadb.models.folder import package_from_folder
from pythiadb.models.image_folder import read_preprocessor
from pythiadb.models.images import FORMATS, Preprocessing, load
from pythiadb.models.probe import probe
from pythiadb.models.session import open_model
from pythiadb.models.source import open_source

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def picture(size: tuple[int, int] = (40, 30), mode: str = "RGB", kind: str = "PNG", **options: Any) -> bytes:
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    shape = (size[1], size[0]) if mode in ("L", "1") else (size[1], size[0], len(mode))
    values = rng.integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(values if mode != "1" else values > 127)
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def params(**changes: Any) -> dict[str, Any]:
    return Preprocessing(resize=8, crop=(8, 8)).to_json() | changes


def config(folder: Path, values: dict[str, Any]) -> Preprocessing:
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return read_preprocessor(open_source(folder, folder))


def by_hand(
    data: bytes, size: tuple[int, int], filter_: Image.Resampling, mean: list[float], std: list[float]
) -> NDArray[np.float32]:
    image = Image.open(io.BytesIO(data)).convert("RGB").resize(size, filter_)
    values = (np.asarray(image, np.float64) / 255 - mean) / std
    return values.astype(np.float32).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (224, 224), (33, 1000), (7, 5)])
def test_clip(tmp_path: Path, size: tuple[int, int]) -> None:
    """The shorter edge becomes 224, then the centre is cut out."""
    steps = config(
        tmp_path / "m",
        {
            "feature_extractor_type": "CLIPFeatureExtractor",
            "crop_size": 224,
            "size": 224,
            "resample": 3,
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
        },
    )
    assert (steps.resize, steps.crop, steps.resample) == (224, (224, 224), "bicubic")
    width, height = size
    large = (224, int(224 * height / width)) if width <= height else (int(224 * width / height), 224)
    data = picture(size)
    whole = by_hand(data, large, Image.Resampling.BICUBIC, CLIP_MEAN, CLIP_STD)
    top, left = (large[1] - 224) // 2, (large[0] - 224) // 2
    found = load(steps.to_json())(data)
    assert found.dtype == np.float32
    assert np.abs(found - whole[:, top : top + 224, left : left + 224]).max() < 1e-5


def test_vision_transformer(tmp_path: Path) -> None:
    """Both edges become 32, whatever the shape."""
    steps = config(
        tmp_path / "m",
        {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 32, "width": 24},
            "resample": 2,
            "do_rescale": True,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.4, 0.3],
        },
    )
    data = picture((50, 20), kind="JPEG")
    expected = by_hand(data, (24, 32), Image.Resampling.BILINEAR, [0.5] * 3, [0.5, 0.4, 0.3])
    assert np.abs(load(steps.to_json())(data) - expected).max() < 1e-5


def test_layouts_colours_and_bytes() -> None:
    data = picture((8, 8))
    plain = np.asarray(Image.open(io.BytesIO(data)))
    raw = load(params(type="uint8", layout="channels_last"))(data)
    assert raw.dtype == np.uint8
    assert np.array_equal(raw, plain)
    assert np.array_equal(load(params(type="uint8", color="BGR"))(data), plain[:, :, ::-1].transpose(2, 0, 1))
    grey = load(params(type="uint8", color="L"))(data)
    assert np.array_equal(grey[0], np.asarray(Image.open(io.BytesIO(data)).convert("L")))
    shifted = load(params(scale=1 / 127.5, offset=-1.0))(data)
    assert np.abs(shifted - (plain / 127.5 - 1).transpose(2, 0, 1)).max() < 1e-6


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_the_centre_is_cut_or_filled_up(width: int, height: int, wide: int, high: int) -> None:
    data = picture((width, height))
    found = load(params(resize=None, crop=[high, wide], type="uint8", layout="channels_last"))(data)
    assert found.shape == (high, wide, 3)
    plain = np.asarray(Image.open(io.BytesIO(data)))
    canvas = np.zeros((max(high, height), max(wide, width), 3), np.uint8)
    top, left = -(-max(high - height, 0) // 2), -(-max(wide - width, 0) // 2)
    canvas[top : top + height, left : left + width] = plain
    top, left = max(height - high, 0) // 2, max(width - wide, 0) // 2
    assert np.array_equal(found, canvas[top : top + high, left : left + wide])


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind: str) -> None:
    assert load(params())(picture(kind=kind)).shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "CMYK"])
def test_every_mode(mode: str) -> None:
    if mode == "CMYK":
        stream = io.BytesIO()
        Image.open(io.BytesIO(picture())).convert("CMYK").save(stream, format="JPEG")
        data = stream.getvalue()
    else:
        data = picture(mode=mode)
    assert load(params())(data).shape == (3, 8, 8)


def test_a_palette_with_transparency() -> None:
    image = Image.open(io.BytesIO(picture())).convert("P")
    stream = io.BytesIO()
    image.save(stream, format="PNG", transparency=b"\x00\x80")
    assert load(params())(stream.getvalue()).shape == (3, 8, 8)


def test_damaged_pictures() -> None:
    whole = picture(kind="JPEG", size=(200, 200))
    pixels = load(params())
    for data in (
        b"",
        b"text",
        whole[:100],
        whole[: len(whole) // 2],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ):
        with pytest.raises(InvalidParameter, match="image cannot be decoded") as caught:
            pixels(data)
        assert "Known formats are JPEG, PNG" in str(caught.value.hint)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_bytes_that_were_changed_give_pixels_or_an_error(draw: st.DataObject) -> None:
    data = bytearray(picture(kind=draw.draw(st.sampled_from(FORMATS))))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidParameter, LimitExceeded):
        assert load(params(max_pixels=10_000))(bytes(data)).shape == (3, 8, 8)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that promises a size and has no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def test_a_picture_that_promises_too_many_pixels_is_not_decoded() -> None:
    for size in ((8000, 8000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)):
        with pytest.raises((LimitExceeded, InvalidParameter)):
            load(params())(png_header(*size))
    with pytest.raises(LimitExceeded, match="image of 101 x 100 pixels exceeds the limit of 10000 pixels"):
        load(params(max_pixels=10_000))(picture((101, 100)))
    with pytest.raises(LimitExceeded, match="resized image of 80000 x 8 pixels exceeds"):
        load(params(max_pixels=10_000))(picture((10_000, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize": 0}, '"resize"'),
        ({"resize": [8, 5000]}, '"resize"'),
        ({"crop": [8]}, '"crop"'),
        ({"crop": None}, "does not end in one size"),
        ({"resample": "magic"}, '"resample"'),
        ({"scale": float("nan")}, '"scale"'),
        ({"mean": [0.5]}, '"mean"'),
        ({"std": [0.5, 0.5, 0]}, '"std"'),
        ({"color": "XYZ"}, '"color"'),
        ({"layout": "diagonal"}, '"layout"'),
        ({"type": "int8"}, '"type"'),
        ({"max_pixels": 10**9}, '"max_pixels"'),
        ({"unknown": 1}, 'unknown image parameter "unknown"'),
    ],
)
def test_parameters_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        load(params(**change))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (
            {"size": {"longest_edge": 9}},
            FeatureNotSupported,
            '"size" of preprocessor_config.json is not supported',
        ),
        ({"size": 8, "resample": 77}, InvalidModel, '"resample"'),
        ({"size": 8, "image_mean": "x", "image_std": 1}, InvalidModel, '"image_mean"'),
        ({"size": -8}, InvalidModel, '"size"'),
        ({"size": {"shortest_edge": 8}}, InvalidModel, "does not end in one size"),
        ({}, InvalidModel, "has no preprocessor_config.json"),
    ],
)
def test_configurations_that_are_refused(
    tmp_path: Path, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        config(tmp_path / "m", values)


def picture_graph(
    output: str, shape: list[Any], *, layout: str = "first", kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """Return a graph whose output is made of the mean of each channel."""
    sizes = ["batch", 3, 8, 8] if layout == "first" else ["batch", 8, 8, 3]
    given = helper.make_tensor_value_info("pixels", kind, sizes)
    nodes = [helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT)]
    value = "floats"
    if layout != "first":
        nodes.append(helper.make_node("Transpose", ["floats"], ["channels"], perm=[0, 3, 1, 2]))
        value = "channels"
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["means"]))
    if len(shape) == 4:
        nodes.append(helper.make_node("Identity", ["means"], [output]))
    elif len(shape) == 3:  # one vector for each row of pixels
        nodes[-1] = helper.make_node("ReduceMean", [value], ["rows"], axes=[3], keepdims=0)
        nodes.append(helper.make_node("Transpose", ["rows"], [output], perm=[0, 2, 1]))
    else:
        nodes.append(helper.make_node("Flatten", ["means"], [output], axis=1))
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "means", [given], [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def picture_folder(folder: Path, model: onnx.ModelProto, **settings: Any) -> Path:
    folder.mkdir()
    onnx.save_model(model, folder / "model.onnx")
    values = {"size": {"height": 8, "width": 8}, "resample": 0, "do_normalize": False, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.UINT8])
@pytest.mark.parametrize("shape", [["batch", 3], ["batch", 3, 1, 1]])
def test_folders_of_pictures(tmp_path: Path, work: Path, layout: str, kind: int, shape: list[Any]) -> None:
    model = picture_graph("image_embeds", shape, layout=layout, kind=kind)
    package = package_from_folder(picture_folder(tmp_path / "m", model), work)
    probe(package)
    data = picture((8, 8))
    opened = open_model(package.files, package.spec, threads=1)
    (vector,) = opened.run(opened.prepare([{"DATA": data}]))
    expected = np.asarray(Image.open(io.BytesIO(data)), np.float64).mean(axis=(0, 1))
    if kind == TensorProto.FLOAT:
        expected = expected / 255
    assert np.allclose(vector[0], expected, rtol=1e-5)


@pytest.mark.parametrize("mode", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_patches_are_pooled(tmp_path: Path, work: Path, mode: str, normalize: bool) -> None:
    folder = picture_folder(tmp_path / "m", picture_graph("last_hidden_state", ["batch", 8, 3]))
    metadata = {"function": "embedding", "pooling": mode, "normalization": normalize}
    package = package_from_folder(folder, work, metadata)
    data = picture((8, 8))
    opened = open_model(package.files, package.spec, threads=1)
    (vector,) = opened.run(opened.prepare([{"DATA": data}]))
    rows = np.asarray(Image.open(io.BytesIO(data)), np.float64).mean(axis=1) / 255
    expected = rows[0] if mode == "cls" else rows.mean(axis=0)
    if normalize:
        expected = expected / np.linalg.norm(expected)
    assert np.allclose(vector[0], expected, rtol=1e-5)


def test_labels_of_a_picture_classifier(tmp_path: Path, work: Path) -> None:
    folder = picture_folder(tmp_path / "m", picture_graph("logits", ["batch", 3]))
    named = {
        "architectures": ["XForImageClassification"],
        "id2label": {"0": "red", "1": "green", "2": "blue"},
    }
    (folder / "config.json").write_text(json.dumps(named))
    package = package_from_folder(folder, work)
    assert (package.spec.labels, package.spec.result) == (("red", "green", "blue"), "text")
    named["id2label"] = {"0": "red", "1": "green"}
    (folder / "config.json").write_text(json.dumps(named))
    with pytest.raises(InvalidModel, match=r'"logits" has 3 columns, there are 2 labels'):
        package_from_folder(folder, work)


def test_graphs_that_do_not_fit_their_preprocessor(tmp_path: Path, work: Path) -> None:
    folder = picture_folder(tmp_path / "m", picture_graph("image_embeds", ["batch", 3]), size=16)
    with pytest.raises(InvalidModel, match=r"has shape \[\?, 3, 8, 8\], preprocessor_config.json makes"):
        package_from_folder(folder, work)
    folder = picture_folder(tmp_path / "two", picture_graph("mine", ["batch", 3]))
    assert package_from_folder(folder, work).spec.outputs == {"embedding": "mine"}
    with pytest.raises(InvalidParameter, match='"other" in the JSON metadata is not a model output'):
        package_from_folder(folder, work, {"function": "embedding", "embeddingOutput": "other"})
    with pytest.raises(FeatureNotSupported, match='function "regression" cannot be made'):
        package_from_folder(folder, work, {"function": "regression"})
