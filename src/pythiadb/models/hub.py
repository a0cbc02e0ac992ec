"""Model folders by their name on the Hugging Face hub, `organisation/name` or `organisation/name@revision`.

Only what an import reads is fetched, into the hub library's own cache. A local folder never comes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pythiadb.errors import FeatureNotSupported, InvalidModel, TransferFailed

_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_SMALL = (".json", ".txt", ".model")
_GRAPHS = ("model.onnx", "text_model.onnx", "vision_model.onnx")


def is_hub_name(text: str) -> bool:
    """Tell whether a text has the form of a name on the hub."""
    return _NAME.fullmatch(text) is not None


def fetch_repository(text: str) -> Path:
    """Return the folder of a repository after fetching what is not there yet.

    Raise FeatureNotSupported when huggingface_hub is not installed, InvalidModel when the repository does not exist or is closed
    to this account, TransferFailed when the hub cannot be reached.
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
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted_files(files))
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise InvalidModel(
            f'model "{text}" does not exist on the hub, or this account may not read it',
            hint="Log in with `hf auth login` or set HF_TOKEN for a closed model.",
        ) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError) as error:
        raise TransferFailed(f'could not fetch "{text}" from the hub', detail=_one_line(error)) from error


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


def _is_clip(names: Iterable[PurePosixPath]) -> bool:
    """Tell a two-tower folder: a picture model alone has no tokenizer."""
    return any(n.name in ("tokenizer.json", "vocab.json", "tokenizer_config.json") for n in names)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") + "."
