"""Looking at model files that a database has handed over, before they count as a model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pythiadb.engine.cache import CachedPackage
from pythiadb.errors import FeatureNotSupported
from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import GRAPH, Package, Spec
from pythiadb.models.probe import probe
from pythiadb.models.validate import check_model_file


def inspect_onnx(path: Path, metadata: dict[str, Any], work: Path, max_bytes: int) -> dict[str, Any]:
    """Return the spec of a package made of one ONNX file. Raises InvalidModel, InvalidParameter, FeatureNotSupported."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        package = package_from_onnx(path, Path(folder), metadata, max_bytes=max_bytes)
    if package.files[GRAPH] != path:
        raise FeatureNotSupported(
            f'the output "{package.spec.output}" of the model is not a float32 tensor',
            hint="Load the file with pythia model load, which converts it.",
        )
    return package.spec.to_json()


def probe_package(package: CachedPackage, max_bytes: int) -> dict[str, Any]:
    """Check the graph and run it once; return its facts. Raises InvalidModel and its kin."""
    spec = Spec.from_json(package.spec)
    check_model_file(package.folder / spec.graph, max_bytes=max_bytes)
    return probe(Package(spec, {f.name: package.folder / f.name for f in package.files}, {}))
