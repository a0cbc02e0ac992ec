"""Model folders by their name on the Hugging Face hub, `organisation/name` or `organisation/name@revision`, and the hub's cache.

Only what an import reads is fetched, into the hub library's own cache. What lies there is used where the hub cannot be reached.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from pythiadb.errors import FeatureNotSupported, InvalidModel, TransferFailed

_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_SMALL = (".json", ".txt", ".model")
_GRAPHS = ("model.onnx", "text_model.onnx", "vision_model.onnx")
_CACHED = "models--"  # what the cache puts before organisation--name


def is_hub_name(text: str) -> bool:
    """Tell whether a text has the form of a name on the hub."""
    return _NAME.fullmatch(text) is not None


def fetch_repository(text: str) -> Path:
    """Return the folder of a repository, in the hub library's cache, after fetching what is not there yet.

    Raise FeatureNotSupported when huggingface_hub is not installed, InvalidModel when the repository does not exist or is closed
    to this account, TransferFailed when the hub cannot be reached and the cache does not have the repository.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise FeatureNotSupported(
            f'loading "{text}" from the hub needs the package huggingface_hub',
            detail="There is no folder of that name here.",
            hint="Run: pip install 'pythiadb[hub]'",
        ) from error
    found = _NAME.fullmatch(text)
    assert found is not None
    name, revision = found["name"], found["revision"]
    try:
        files = huggingface_hub.HfApi().list_repo_files(name, revision=revision)
        chosen = wanted_files(files)
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=chosen))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise InvalidModel(
            f'model "{text}" does not exist on the hub, or this account may not read it',
            hint="Log in with `hf auth login` or set HF_TOKEN for a closed model.",
        ) from error
    except Exception as error:  # what the library's HTTP client raises depends on its version
        return _from_cache(huggingface_hub, text, error)


def _from_cache(library: Any, text: str, reason: Exception) -> Path:
    found = _NAME.fullmatch(text)
    assert found is not None
    try:
        return Path(
            library.snapshot_download(found["name"], revision=found["revision"], local_files_only=True)
        )
    except OSError:
        raise TransferFailed(
            f'could not fetch "{text}" from the hub',
            detail=_one_line(reason),
            hint="Without a network, give a folder with the model's files, or fill the hub's cache with `hf download`.",
        ) from reason


def wanted_files(files: Iterable[str]) -> list[str]:
    """Choose configuration, tokenizer and weights; ready graphs only where there are no weights."""
    names = [PurePosixPath(name) for name in files]
    weights = [n for n in names if n.suffix == ".safetensors" and n.parts[0] not in ("onnx", "openvino")]
    graphs = [n for n in names if n.parent.name in ("", "onnx") and n.name.startswith(_GRAPHS)]
    small = [n for n in names if n.suffix in _SMALL and len(n.parts) <= 2]
    towers = [n for n in graphs if not n.name.startswith("model")]
    heavy = weights or towers or graphs
    if weights and any(n.name == "preprocessor_config.json" for n in names) and not _is_clip(names):
        heavy = graphs or weights  # picture models are read as graphs
    return sorted({str(n) for n in (*small, *heavy)})


def snapshot(folder: Path) -> Path:
    """Return the folder with the files when `folder` is a repository in the hub's cache, else `folder`.

    The repository's branch main counts, or its only snapshot.
    """
    snapshots = folder / "snapshots"
    if not (folder.name.startswith(_CACHED) and snapshots.is_dir()):
        return folder
    main = folder / "refs" / "main"
    if main.is_file():
        return snapshots / main.read_text(encoding="utf-8").strip()
    found = list(snapshots.iterdir())
    if len(found) != 1:
        raise InvalidModel(
            f'folder "{folder.name}" of the hub\'s cache has {len(found)} snapshots',
            hint=f"Name one of them: {snapshots}/…",
        )
    return found[0]


def repository_name(folder: Path) -> str | None:
    """Return the name, without its organisation, that a folder of the hub's cache has on the hub; None for other folders."""
    repository = folder.parent.parent if folder.parent.name == "snapshots" else folder
    if not repository.name.startswith(_CACHED):
        return None
    return repository.name.rpartition("--")[2]


def without_links(folder: Path, work: Path) -> Path:
    """Return a snapshot of the hub's cache as a folder of plain files in `work`; any other folder as it is.

    The cache's snapshots are links to files elsewhere in the repository. External data must not leave a model's folder, not even
    through a link, so those files get the names of the links.
    """
    if repository_name(folder) is None:
        return folder
    blobs = (folder.parent.parent / "blobs").resolve()
    made = work / "snapshot" / folder.name
    for path in folder.rglob("*"):
        real = path.resolve()
        if not real.is_file() or not (real.is_relative_to(blobs) or real.is_relative_to(folder.resolve())):
            continue
        target = made / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(real, target)
        except OSError:  # another file system
            shutil.copyfile(real, target)
    return made


def _is_clip(names: Iterable[PurePosixPath]) -> bool:
    """Tell a two-tower folder: a picture model alone has no tokenizer."""
    return any(n.name in ("tokenizer.json", "vocab.json", "tokenizer_config.json") for n in names)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") + "."
