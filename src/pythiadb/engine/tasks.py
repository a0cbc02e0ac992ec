"""What throw-away processes do: look at files that may be hostile, make mapped graphs, fetch files, try a call of a suspect."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

from pythiadb.engine.calls import read_call
from pythiadb.engine.child import Task
from pythiadb.errors import InvalidModel
from pythiadb.models.mapped import machine_name
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import GRAPH, Package, Spec
from pythiadb.models.probe import probe
from pythiadb.models.remote import fetch
from pythiadb.models.session import open_model, save_optimized
from pythiadb.models.validate import check_model_file

# What is imported when it is needed: here it must be imported before, see engine/template.py.
_LATER = (
    "onnxruntime_extensions",
    "pythiadb.models.images",
    # Pillow's own list of common formats, then what images.py knows beside them; a JPEG may turn out to be an MPO.
    *(f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Ppm", "Png", "Mpo", "Tiff", "WebP")),
    "encodings.idna",
    "numpy.random",
    "uvloop",
)


def import_all() -> None:
    """Import what tasks and workers may come to need, and read what lies beside the libraries."""
    machine_name()
    for name in _LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _open(arguments: dict[str, Any]) -> Any:
    """Check the graph and run the model once; return its facts. {"folder", "spec", "files", "max_bytes", "threads"}."""
    folder, spec = Path(arguments["folder"]), Spec.from_json(arguments["spec"])
    check_model_file(folder / spec.graph, max_bytes=arguments["max_bytes"])
    package = Package(spec, {name: folder / name for name in arguments["files"]}, {})
    return probe(package, threads=arguments["threads"])


def _inspect(arguments: dict[str, Any]) -> Any:
    """Look at a package of ONNX files. {"files": {name: path}, "metadata", "max_bytes", "folder": an empty one}.

    Return its spec, the name of its graph among the files, and the path of another graph to be used instead, or None: lists
    and maps among the outputs (scikit-learn's ZipMap) are replaced by what they are made of.
    """
    source, made = Path(arguments["folder"]) / "source", Path(arguments["folder"]) / "made"
    source.mkdir()
    made.mkdir()
    for name, path in arguments["files"].items():
        os.link(path, source / name)
    graph = source / _graph_name(list(arguments["files"]))
    package = package_from_onnx(graph, made, arguments["metadata"], max_bytes=arguments["max_bytes"])
    used = package.files[package.spec.graph]
    return {
        "spec": package.spec.to_json(),
        "given": graph.name,
        "graph": None if used == graph else str(used),
    }


def _graph_name(names: list[str]) -> str:
    graphs = [name for name in names if name.endswith(".onnx")]
    if GRAPH in graphs:
        return GRAPH
    if len(graphs) != 1:
        raise InvalidModel(f"a model needs one file that ends in .onnx, not {len(graphs)}")
    return graphs[0]


def _map(arguments: dict[str, Any]) -> Any:
    """Write the optimized graph and its weights. {"graph", "target", "weights", "threads"}."""
    graph, target = Path(arguments["graph"]), Path(arguments["target"])
    return [path.name for path in save_optimized(graph, target, arguments["weights"], arguments["threads"])]


def _fetch(arguments: dict[str, Any]) -> Any:
    """Fetch files from an address. {"uri", "credential", "max_bytes", "folder"}."""
    paths = fetch(
        arguments["uri"], arguments["credential"], arguments["max_bytes"], Path(arguments["folder"])
    )
    return [str(path) for path in paths]


def _call(arguments: dict[str, Any]) -> Any:
    """Run a whole call. {"verb", "payload", "attachment", "folder", "spec", "graph", "threads", "max_bytes"}."""
    call = read_call(arguments["verb"], arguments["payload"].encode(), arguments["attachment"].encode())
    graph = arguments["graph"]
    model = open_model(
        Path(arguments["folder"]),
        Spec.from_json(arguments["spec"]),
        threads=arguments["threads"],
        graph=None if graph is None else Path(graph),
    )
    items = call.prepare(model, arguments["max_bytes"])
    lines = call.answer(model, [output for item in items for output in model.run([item])])
    return [None if line is None else line.decode() for line in lines]


TASKS: dict[str, Task] = {"open": _open, "inspect": _inspect, "map": _map, "fetch": _fetch, "call": _call}
