"""Names on the Hugging Face hub: the hub's cache as a folder, the library against a server of this machine, no library."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import bert_config, bert_weights, token_graph, write_folder, write_modules, write_tokenizer

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.hub import is_hub_name, repository_name, snapshot, wanted_files
from pythiadb.models.loading import read_packages
from pythiadb.models.package import Package
from pythiadb.models.session import open_model

REVISION = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["the cat sits outside", "a dog runs quickly"]


def embed(package: Package) -> np.ndarray:
    return open_model(package.files, package.spec, threads=1).embed(TEXTS)


def put(cache: Path, name: str, folder: Path) -> Path:
    """Lay the files of a folder into a hub cache as the library does; return the repository's folder there."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    (repository / "blobs").mkdir()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.write_bytes(path.read_bytes())
        link = repository / "snapshots" / REVISION / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return repository


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "plain", bert_config(), bert_weights())


@pytest.fixture
def graph_with_data(tmp_path: Path) -> Path:
    """A folder with a ready graph whose weights lie in a second file."""
    folder = tmp_path / "ready"
    (folder / "onnx").mkdir(parents=True)
    write_tokenizer(folder)
    write_modules(folder, "pooling_mode_mean_tokens", normalize=True)
    onnx.save_model(
        token_graph(), folder / "onnx" / "model.onnx", save_as_external_data=True, location="model.onnx_data",
        size_threshold=0,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        ("BAAI/bge-small-en-v1.5", True),
        ("org/model@v1.0", True),
        ("org/model@refs/pr/3", True),
        ("model.onnx", False),
        ("/srv/models/minilm", False),
        ("../models", True),  # a folder of that name goes first
        ("a/b/c", False),
    ],
)
def test_names(text: str, is_name: bool) -> None:
    assert is_hub_name(text) == is_name


COMMON = ["README.md", "config.json", "tokenizer.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (
            [*COMMON, "model.safetensors", "onnx/model.onnx", "onnx/model_O4.onnx", "1_Pooling/config.json"],
            ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"],
        ),
        (
            [*COMMON, "onnx/model.onnx", "onnx/model.onnx_data", "openvino/openvino_model.bin"],
            ["config.json", "onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json"],
        ),
        (
            [*COMMON, "onnx/text_model.onnx", "onnx/vision_model.onnx", "onnx/model.onnx", "preprocessor_config.json"],
            ["config.json", "onnx/text_model.onnx", "onnx/vision_model.onnx", "preprocessor_config.json", "tokenizer.json"],
        ),
        (
            ["config.json", "preprocessor_config.json", "model.safetensors", "onnx/model.onnx"],
            ["config.json", "onnx/model.onnx", "preprocessor_config.json"],
        ),
        (["vocab.txt", "spiece.model", "a/b/c.json", "tf_model.h5"], ["spiece.model", "vocab.txt"]),
    ],
)  # fmt: skip
def test_only_what_an_import_reads_is_fetched(files: list[str], chosen: list[str]) -> None:
    assert wanted_files(files) == chosen


def test_the_cache_s_folder_is_a_model_folder(encoder: Path, tmp_path: Path, work: Path) -> None:
    repository = put(tmp_path / "cache", "org/tiny-encoder", encoder)
    assert repository_name(repository) == repository_name(snapshot(repository)) == "tiny-encoder"
    (tmp_path / "straight").mkdir()
    straight = read_packages(encoder, tmp_path / "straight")[""]
    cached = read_packages(repository, work)[""]
    assert cached.spec == straight.spec
    assert np.array_equal(embed(cached), embed(straight))


def test_external_data_of_a_snapshot_are_followed(graph_with_data: Path, tmp_path: Path, work: Path) -> None:
    """A snapshot's files are links out of its folder, which no model's external data may be."""
    (tmp_path / "straight").mkdir()
    straight = read_packages(graph_with_data, tmp_path / "straight")[""]
    repository = put(tmp_path / "cache", "org/ready", graph_with_data)
    cached = read_packages(repository / "snapshots" / REVISION, work)[""]
    assert np.array_equal(embed(cached), embed(straight))


def test_links_out_of_the_repository_are_not_followed(
    graph_with_data: Path, tmp_path: Path, work: Path
) -> None:
    repository = put(tmp_path / "cache", "org/ready", graph_with_data)
    link = repository / "snapshots" / REVISION / "onnx" / "model.onnx_data"
    link.unlink()
    link.symlink_to(graph_with_data / "onnx" / "model.onnx_data")
    with pytest.raises(InvalidModel, match='"model.onnx_data" is missing'):
        read_packages(repository, work)


def test_snapshots_without_a_branch(encoder: Path, tmp_path: Path) -> None:
    repository = put(tmp_path / "cache", "org/tiny", encoder)
    (repository / "refs" / "main").unlink()
    assert snapshot(repository).name == REVISION
    (repository / "snapshots" / ("f" * 40)).mkdir()
    with pytest.raises(InvalidModel, match="has 2 snapshots") as caught:
        snapshot(repository)
    assert "Name one of them" in str(caught.value)


def test_without_the_library_the_error_says_what_to_do(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FeatureNotSupported, match="needs the package huggingface_hub") as caught:
        read_packages("org/tiny", work)
    assert caught.value.hint == "Run: pip install 'pythiadb[hub]'"


# The library itself, in a process of its own: it reads its environment once -------------------------------------------------

READ = """
import sys, tempfile
from pathlib import Path
from pythiadb.errors import PythiaError
from pythiadb.models.loading import read_packages
try:
    package = read_packages(sys.argv[1], Path(tempfile.mkdtemp(dir=sys.argv[2])))[""]
    print(package.spec.dimensions, package.spec.max_tokens)
except PythiaError as error:
    print(error.sqlstate, error)
"""


def read(name: str, folder: Path, **environment: str) -> str:
    cache = {
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", READ, name, str(folder)], env={**os.environ, **cache, **environment},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def test_offline_the_cache_serves(encoder: Path, tmp_path: Path) -> None:
    put(tmp_path / "cache", "org/tiny", encoder)
    assert read("org/tiny", tmp_path, HF_HUB_OFFLINE="1") == "24 20\n"
    assert read(f"org/tiny@{REVISION}", tmp_path, HF_HUB_OFFLINE="1") == "24 20\n"
    missing = read("org/other", tmp_path, HF_HUB_OFFLINE="1")
    assert missing.startswith('58030 could not fetch "org/other" from the hub\nDETAIL:  ')
    assert "HINT:  Without a network, give a folder with the model's files" in missing


@pytest.fixture
def hub(encoder: Path) -> Iterator[tuple[str, list[str]]]:
    """A server with one repository, org/tiny, by the paths of the hub's API; and the files that were asked for."""
    (encoder / "pytorch_model.bin").write_bytes(b"not wanted")
    files = {str(p.relative_to(encoder)): p.read_bytes() for p in encoder.rglob("*") if p.is_file()}
    served: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/org/tiny"):
                siblings = [{"rfilename": name} for name in files]
                tree = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
                info = {"id": "org/tiny", "sha": REVISION, "siblings": siblings, "private": False}
                self.answer(json.dumps(tree if "/tree/" in path else info).encode())
            elif path.startswith("/org/tiny/resolve/") and (name := path.split("/", 5)[5]) in files:
                if self.command == "GET":
                    served.append(name)
                self.answer(files[name])
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", served
        server.shutdown()
        thread.join()


def test_a_repository_is_fetched_once_and_only_its_useful_files(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, served = hub
    assert read("org/tiny", tmp_path, HF_ENDPOINT=address) == "24 20\n"
    assert set(served) == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
    }
    served.clear()
    assert read("org/tiny", tmp_path, HF_ENDPOINT=address) == "24 20\n"
    assert served == []
    unknown = read("org/unknown", tmp_path, HF_ENDPOINT=address)
    assert unknown.startswith('22X01 model "org/unknown" does not exist on the hub')
    assert "HINT:  Log in with `hf auth login`" in unknown
