"""EfficientNet-Lite0 on scikit-image's photographs, against bare ONNX Runtime on pixels that Pillow and numpy made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from pythiadb.errors import InvalidParameter
from pythiadb.models.folder import package_from_folder
from pythiadb.models.operators import answers
from pythiadb.models.package import Attribute, Package
from pythiadb.models.probe import probe
from pythiadb.models.session import Model, Scores, open_model
from tools.efficientnet_lite import FEATURES, PREPROCESSOR, SIDE, write_folder

# ImageNet's classes that fit a photograph, counted from 0
SEEN = {
    "chelsea.png": {281, 282, 283, 285, 287},  # cats and a lynx
    "coffee.png": {504, 967, 968},
    "rocket.jpg": {657, 744, 812},
    "motorcycle_left.png": {665, 670},
}


@pytest.fixture(scope="module")
def photographs() -> dict[str, bytes]:
    skimage = pytest.importorskip("skimage", reason="scikit-image, with its photographs, is not installed")
    folder = Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "camera.png", "hubble_deep_field.jpg", "retina.jpg", *SEEN)
    return {name: (folder / name).read_bytes() for name in sorted(names)}


@pytest.fixture(scope="module")
def classifier(efficientnet_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = write_folder(efficientnet_checkpoint, tmp_path_factory.mktemp("classifier") / "m")
    return package_from_folder(folder, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def embedder(efficientnet_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = write_folder(efficientnet_checkpoint, tmp_path_factory.mktemp("features") / "m", features=True)
    return package_from_folder(folder, tmp_path_factory.mktemp("work"))


def opened(package: Package) -> Model:
    return open_model(package.files, package.spec, threads=2)


def pixels(path: Path) -> NDArray[np.float32]:
    """Do by hand what preprocessor_config.json says: shorter edge 256, the centre of 224, mean and deviation."""
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    short = min(width, height)
    size = (int(256 * width / short), int(256 * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    values = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)), np.float64) / 255
    mean, std = (np.array(PREPROCESSOR[key]) for key in ("image_mean", "image_std"))
    return ((values - mean) / std).astype(np.float32).transpose(2, 0, 1)


def bare(package: Package, photographs: dict[str, bytes], tmp_path: Path) -> NDArray[np.float32]:
    session = ort.InferenceSession(package.files["model.onnx"])
    rows = []
    for name, content in photographs.items():
        (tmp_path / name).write_bytes(content)
        (output,) = session.run(None, {"pixel_values": pixels(tmp_path / name)[np.newaxis]})
        rows.append(output[0])
    return np.stack(rows)


def test_classes_equal_bare_onnx_runtime(
    classifier: Package, photographs: dict[str, bytes], tmp_path: Path
) -> None:
    spec = classifier.spec
    assert (spec.function, spec.result, spec.normalize_prob) == ("classification", "numeric", "softmax")
    assert spec.attributes == (Attribute("DATA", "blob"),)
    probe(classifier)
    model = opened(classifier)
    outputs = model.run(model.prepare([{"data": content} for content in photographs.values()]))
    logits = np.concatenate([output["probability"] for output in outputs if isinstance(output, Scores)])
    expected = bare(classifier, photographs, tmp_path)
    assert np.abs(logits - expected).max() < 1e-3
    best = [text for output in outputs for text in answers("prediction", [], spec, output)]
    assert best == [str(number + 1) for number in expected.argmax(axis=1)]  # without labels: from 1
    powers = np.exp(expected.astype(np.float64) - expected.max(axis=1, keepdims=True))
    shares = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    found = [t for output in outputs for t in answers("prediction_probability", [], spec, output)]
    assert np.allclose([float(text or "nan") for text in found], shares, atol=1e-4)


def predictions(package: Package, asked: list[dict[str, object] | None]) -> list[str | None]:
    model = opened(package)
    outputs = model.run(model.prepare(asked))
    return [text for output in outputs for text in answers("prediction", [], package.spec, output)]


def test_a_cat_is_a_cat(classifier: Package, photographs: dict[str, bytes]) -> None:
    asked = [{"DATA": "\\x" + photographs[name].hex()} for name in SEEN]  # as SQL sends it
    for label, fitting in zip(predictions(classifier, asked), SEEN.values(), strict=True):
        assert int(label or 0) - 1 in fitting


def test_features_equal_bare_onnx_runtime(
    embedder: Package, photographs: dict[str, bytes], tmp_path: Path
) -> None:
    assert (embedder.spec.function, embedder.spec.dimensions) == ("embedding", FEATURES)
    probe(embedder)
    model = opened(embedder)
    vectors = np.concatenate(
        model.run(model.prepare([{"DATA": content} for content in photographs.values()]))
    )
    expected = bare(embedder, photographs, tmp_path)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((vectors * expected).sum(axis=1) / lengths).min() > 0.9999
    assert np.abs(np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1) - 1).max() < 1e-3


def test_pictures_and_nulls_in_one_call(classifier: Package, photographs: dict[str, bytes]) -> None:
    cat, cup = ({"DATA": photographs[name]} for name in ("chelsea.png", "coffee.png"))
    (alone,), (other,) = predictions(classifier, [cat]), predictions(classifier, [cup])
    assert alone != other
    found = predictions(classifier, [None, cat, {"DATA": None}, {}, cup])
    assert found == [None, alone, None, None, other]


@pytest.mark.parametrize(
    "value", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", "\\x0a", "\\xzz", "text", 7, [1], {"a": 1}]
)
def test_what_is_no_picture(classifier: Package, value: object) -> None:
    with pytest.raises(InvalidParameter):
        opened(classifier).prepare([{"DATA": value}])
