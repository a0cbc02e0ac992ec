from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from pythiadb.models.folder import package_from_folder
from pythiadb.models.package import Package
from pythiadb.models.session import Model, open_model

ROOT = Path(__file__).resolve().parents[3]


def load_tool(name: str) -> Any:
    """Import a file of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 as published, fetched once."""
    return Path(load_tool("fetch_models").fetch_minilm(ROOT / ".cache" / "models"))


@pytest.fixture(scope="session")
def minilm_package(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return package_from_folder(minilm_folder, tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="session")
def minilm(minilm_package: Package) -> Model:
    return open_model(minilm_package.files, minilm_package.spec, threads=2)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty folder for files that an import makes."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def wordllama_folder() -> Path:
    """A table of static embeddings with its tokenizer, fetched once."""
    return _fetched("WORDLLAMA")


@pytest.fixture(scope="session")
def efficientnet_checkpoint() -> Path:
    """The published weights of an image classifier, fetched once."""
    return next(_fetched("EFFICIENTNET").glob("*.pth"))


def _fetched(name: str) -> Path:
    tool = load_tool("fetch_models")
    try:
        return Path(tool.fetch(getattr(tool, name), ROOT / ".cache" / "models"))
    except tool.FetchError as error:
        pytest.skip(str(error))
