"""From files on this machine, or a name on the hub, to models in the database; and back."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import onnx
import orjson
from onnx import TensorProto, numpy_helper

from pythiadb.errors import InvalidModel, InvalidParameter, UndefinedModel
from pythiadb.models.building import INLINE_LIMIT, save_model, weight_bytes
from pythiadb.models.export import MANIFEST, read_exported
from pythiadb.models.folder import packages_from_folder
from pythiadb.models.hub import fetch_repository, is_hub_name, snapshot, without_links
from pythiadb.models.metadata import decode
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import Package, Spec, is_stored_name
from pythiadb.models.validate import check_model_file

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
    function: str | None = None,
    prompt: str | None = None,
    inmemory: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Store a Hugging Face folder, a name on its hub, or an ONNX file as model `name`; return the names of what was made.

    A CLIP folder makes two models, `name`_text and `name`_image. `metadata` are Oracle's; `function` says what a model is for where
    the folder does not tell; `prompt` names one of the folder's prompts. With `inmemory` all sessions share one copy of the weights.
    Runs in the connection's transaction, or in one of its own. The engine checks and probes each model before it counts. `name`
    follows SQL's rules for identifiers and may name a schema. Raises InvalidModel, FeatureNotSupported or InvalidParameter for what
    cannot be loaded, psycopg.errors.DuplicateTable when the name is taken.
    """
    with tempfile.TemporaryDirectory(prefix="pythia-load-") as work, connection.transaction():
        connection.execute("SELECT pythia.check_loader()")  # before files are read and sent
        packages = read_packages(path, Path(work), metadata, function=function, prompt=prompt)
        described = {suffix: _describe_all(package) for suffix, package in packages.items()}
        report = _reporter(sum(f["size"] for files in described.values() for f in files), progress)
        for suffix, package in packages.items():
            _send(connection, package, described[suffix], report)
            made = suffixed(name, suffix)
            texts = map(_json, (package.spec.to_json(), package.metadata, described[suffix]))
            connection.execute("SELECT pythia.create_model(%s, %s, %s, %s)", (made, *texts))
            if inmemory:
                connection.execute("CALL dbms_vector.inmemory_onnx_model(%s)", (made,))
    return [suffixed(name, suffix) for suffix in packages]


def read_packages(
    source: str | Path,
    work: Path,
    metadata: str | Mapping[str, Any] | None = None,
    *,
    function: str | None = None,
    prompt: str | None = None,
) -> dict[str, Package]:
    """Return the packages that `source` makes, by the suffix of their names; files that had to be made are in `work`.

    Weights of more than a mebibyte lie outside the graphs, so that the engine's processes can share them.
    """
    folder = Path(source).expanduser()
    if not folder.exists() and is_hub_name(str(source)):
        folder = fetch_repository(str(source))
    folder = without_links(snapshot(folder), work)
    if (folder / MANIFEST).is_file():
        if metadata is not None or function is not None or prompt is not None:
            raise InvalidParameter(
                f'folder "{folder.name}" holds an exported model, which has its metadata with it'
            )
        return {"": read_exported(folder)}
    if folder.is_dir():
        packages = packages_from_folder(folder, work, metadata, function=function, prompt=prompt)
    elif folder.is_file():
        if prompt is not None:
            raise InvalidParameter("only model folders have prompts")
        packages = {"": package_from_onnx(folder, work, _with_function(metadata, function))}
    else:
        raise InvalidModel(
            f'"{source}" does not exist',
            hint="Give an ONNX file, a Hugging Face folder, or a name on the hub like organisation/name.",
        )
    return {suffix: shareable(package, work / f"shared{suffix}") for suffix, package in packages.items()}


def shareable(package: Package, work: Path) -> Package:
    """Return the package with its weights outside the graph if they are large, under names that the database can store.

    A graph that has external data with such names stays as it is.
    """
    path = package.files[package.spec.graph]
    checked = check_model_file(path)
    named = all(map(is_stored_name, package.files))
    if checked.external and named:
        return package
    model = onnx.load(path) if checked.external else checked.model
    _make_raw(model)
    if not checked.external and weight_bytes(model) <= INLINE_LIMIT:
        return package
    work.mkdir(exist_ok=True)
    others = {n: p for n, p in package.files.items() if n != package.spec.graph and n not in checked.external}
    return replace(package, files={**others, **save_model(model, work / package.spec.graph)})


def stored_package(
    connection: Connection, name: str, work: Path, *, progress: Progress | None = None
) -> Package:
    """Return the package of a model in the database, its files copied into the folder `work`.

    Raise UndefinedModel when there is no such model, psycopg.errors.InsufficientPrivilege for anyone but its owner.
    """
    row = connection.execute(
        "SELECT relation::text, spec, metadata, facts -> 'files' FROM pythia.model WHERE relation = to_regclass(%s)",
        (name,),
    ).fetchone()
    if row is None:
        raise UndefinedModel(
            f'model "{name}" does not exist', hint="The models that you may use: pythia model list"
        )
    relation, spec, metadata, files = row
    report = _reporter(sum(files.values()), progress)
    for file in files:
        with (work / file).open("wb") as stream:
            number = 0
            while chunk := _chunk(connection, relation, file, number):
                stream.write(chunk)
                report(len(chunk))
                number += 1
    return Package(Spec.from_json(spec), {file: work / file for file in files}, metadata)


def suffixed(name: str, suffix: str) -> str:
    """Return a model's name with a suffix, inside the quotes if it is quoted."""
    return f'{name[:-1]}{suffix}"' if name.endswith('"') else name + suffix


def _chunk(connection: Connection, relation: str, file: str, number: int) -> bytes | None:
    row = connection.execute(
        "SELECT pythia.get_model_chunk(%s::regclass, %s, %s)", (relation, file, number)
    ).fetchone()
    return None if row is None or row[0] is None else bytes(row[0])


def _with_function(
    metadata: str | Mapping[str, Any] | None, function: str | None
) -> str | Mapping[str, Any] | None:
    if function is None:
        return metadata
    given = {} if metadata is None else decode(metadata)
    if given.setdefault("function", function) != function:
        raise InvalidParameter(
            f'function "{function}" contradicts the metadata, which say "{given["function"]}"'
        )
    return given


def _make_raw(model: onnx.ModelProto) -> None:
    """Turn large weights that are lists of numbers into bytes, the only form that can leave the graph."""
    for tensor in model.graph.initializer:
        if tensor.raw_data or tensor.data_type == TensorProto.STRING or tensor.ByteSize() < 1024:
            continue
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))


def _describe_all(package: Package) -> list[dict[str, Any]]:
    return [_describe(name, path) for name, path in sorted(package.files.items())]


def _describe(name: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": name, "sha256": digest, "size": path.stat().st_size}


def _reporter(total: int, progress: Progress | None) -> Callable[[int], None]:
    """Return what is told about every piece that was sent."""
    sent = 0

    def report(size: int) -> None:
        nonlocal sent
        sent += size
        if progress is not None:
            progress(sent, total)

    return report


def _send(
    connection: Connection, package: Package, files: list[dict[str, Any]], report: Callable[[int], None]
) -> None:
    for file in files:
        for number, chunk in enumerate(_chunks(package.files[file["name"]])):
            connection.execute("SELECT pythia.put_model_chunk(%s, %s, %b)", (file["sha256"], number, chunk))
            report(len(chunk))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
