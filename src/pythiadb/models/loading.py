"""From files on this machine to a model in the database."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from pythiadb.errors import InvalidModel
from pythiadb.models.folder import package_from_folder
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import Package

CHUNK_BYTES = 1 << 20  # a row of pythia.model_chunk
Progress = Callable[[int, int], None]  # bytes sent, bytes in all


class Connection(Protocol):
    """What loading needs of a database connection."""

    def execute(self, query: Any, params: Any = None, /) -> Any: ...

    def transaction(self) -> Any: ...


def load_model(
    connection: Connection,
    path: str | Path,
    name: str,
    *,
    metadata: str | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Store a Hugging Face folder, or an ONNX file that takes strings, as model `name`.

    Runs in the connection's transaction, or in one of its own. The engine checks and probes the model before it counts. `name`
    follows SQL's rules for identifiers and may name a schema. Raises InvalidModel, FeatureNotSupported or InvalidParameter for
    what cannot be loaded, psycopg.errors.DuplicateTable when the name is taken.
    """
    source = Path(path).expanduser()
    with tempfile.TemporaryDirectory(prefix="pythia-load-") as work, connection.transaction():
        package = read_package(source, Path(work), metadata)
        files = [_describe(file, file_path) for file, file_path in sorted(package.files.items())]
        _send(connection, package, files, progress)
        connection.execute(
            "SELECT pythia.create_model(%s, %s, %s, %s)",
            (name, *(orjson.dumps(v).decode() for v in (package.spec.to_json(), package.metadata, files))),
        )


def read_package(source: Path, work: Path, metadata: str | Mapping[str, Any] | None) -> Package:
    """Return the package that `source` makes; files that had to be made are in `work`."""
    if source.is_dir():
        return package_from_folder(source, work, metadata)
    if not source.is_file():
        raise InvalidModel(f'"{source}" does not exist', hint="Give an ONNX file or a Hugging Face folder.")
    return package_from_onnx(source, work, metadata)


def _describe(name: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": name, "sha256": digest, "size": path.stat().st_size}


def _send(
    connection: Connection, package: Package, files: list[dict[str, Any]], progress: Progress | None
) -> None:
    total, sent = sum(f["size"] for f in files), 0
    for file in files:
        for number, chunk in enumerate(_chunks(package.files[file["name"]])):
            connection.execute("SELECT pythia.put_model_chunk(%s, %s, %b)", (file["sha256"], number, chunk))
            sent += len(chunk)
            if progress is not None:
                progress(sent, total)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
