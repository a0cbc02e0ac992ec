"""Mapped models: weights in a file that all processes map, so that a machine holds one copy however many of them run it.

    mapped/<package>-<machine>/     graph.onnx, weights.bin (weights and their prepacked forms), manifest.json
    mapped/<package>-<machine>.lock held while it is made
    mapped/<package>-<machine>.failed   why it could not be made, by which run of the engine

ONNX Runtime writes the weights in the form in which its kernels want them, which depends on its version and on the processor:
both are part of the name. What lies here can be deleted at any moment; processes that have mapped it keep their copy until
they close it. The sizes in the manifest are compared whenever a graph is opened, the checksums once in each run of the engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import orjson

from pythiadb.errors import InvalidModel
from pythiadb.postgres import owners

GRAPH_NAME = "graph.onnx"
WEIGHTS_NAME = "weights.bin"
MANIFEST = "manifest.json"
CHECKED = "checked"  # holds the run of the engine that has compared the checksums
DRAFT_PREFIXES = (".draft.", ".gone.")  # of folders on their way; then comes whose they are
RETRY_SECONDS = 60.0  # before a graph that could not be made is tried again
POLL_SECONDS = 0.05

Build = Callable[[Path, str], object]  # writes the graph to a path and its weights beside it under a name


@dataclass(frozen=True, slots=True)
class MappedGraph:
    """An optimized graph whose weights are mapped; sizes in bytes."""

    package: str
    folder: Path
    metadata_bytes: int
    initializer_bytes: int
    prepacked_bytes: int

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH_NAME

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS_NAME

    @property
    def bytes(self) -> int:
        return self.metadata_bytes + self.initializer_bytes + self.prepacked_bytes

    @property
    def is_there(self) -> bool:
        """False when the files were deleted: who has them open should let go."""
        return self.weights.exists() or self.graph.exists()

    def address(self) -> int | None:
        """Return where this process has mapped the weights; None when it has not."""
        path = str(self.weights)
        with Path("/proc/self/maps").open() as lines:
            places = [int(line.partition("-")[0], 16) for line in lines if path in line]
        return min(places, default=None)


class MappedStore:
    """The mapped graphs below `root`. `run` names this run of the engine."""

    def __init__(self, root: Path, run: str) -> None:
        self._root = root
        self._run = run

    def find(self, package: str) -> MappedGraph | None:
        """Return a mapped graph that can be trusted; what cannot is deleted."""
        folder = self._folder(package)
        if not folder.exists():
            return None
        try:
            manifest = orjson.loads((folder / MANIFEST).read_bytes())
            if _sizes_match(folder, manifest["files"]) and self._is_checked(folder, manifest["files"]):
                return _from_manifest(folder, manifest)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # incomplete or overwritten: a cache
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def make(self, package: str, build: Build) -> MappedGraph:
        """Return the mapped graph of a package, made by `build` if there is none; waits while another process makes it.

        Raise InvalidModel when it cannot be made, for some time without trying.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock(package):
            found = self.find(package)
            if found is not None:
                return found
            self._check_failure(package)
            self.remove(package)  # made for another processor or version
            try:
                return self._build(package, build)
            except Exception as error:
                self._note_failure(package, error)
                raise

    def remove(self, package: str) -> None:
        """Delete the mapped graphs of a package, and what is known of failures."""
        for path in self._root.glob(f"{package}-*"):
            if path.is_dir():
                gone = Path(tempfile.mkdtemp(dir=self._root, prefix=DRAFT_PREFIXES[1] + owners.prefix()))
                with contextlib.suppress(OSError):
                    path.rename(gone / "graph")
                shutil.rmtree(gone, ignore_errors=True)
            elif path.suffix == ".failed":
                path.unlink(missing_ok=True)

    def status(self, pins: dict[str, list[int]]) -> list[dict[str, Any]]:
        """Return what is mapped, being made, or has failed. `pins` lists, by package, where processes have it mapped."""
        found = {name: self._entry(name, pins.get(name, [])) for name in self._packages()}
        for package in pins.keys() - found.keys():  # deleted, and not yet let go by all
            found[package] = _entry(package, "RECLAIMING", pins[package])
        return [found[package] for package in sorted(found)]

    def _packages(self) -> set[str]:
        suffix = f"-{machine_name()}"
        names = (path.name.partition(".")[0] for path in self._root.glob(f"*{suffix}*"))
        return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}

    def _entry(self, package: str, pins: list[int]) -> dict[str, Any]:
        folder = self._folder(package)
        try:
            graph = _from_manifest(folder, orjson.loads((folder / MANIFEST).read_bytes()))
        except (OSError, ValueError, KeyError):
            return _entry(package, self._unfinished(package, pins), pins)
        return _entry(package, "ENABLED", pins, graph)

    def _unfinished(self, package: str, pins: list[int]) -> str:
        if self._is_locked(package):
            return "POPULATING"
        if self._mark(package).exists():
            return "FAILED"
        return "RECLAIMING" if pins else "UNKNOWN"

    def _folder(self, package: str) -> Path:
        return self._root / f"{package}-{machine_name()}"

    def _mark(self, package: str) -> Path:
        return self._folder(package).with_suffix(".failed")

    @contextlib.contextmanager
    def _lock(self, package: str) -> Iterator[None]:
        """Hold the lock of a package; its file is deleted with the lock, so what was opened may be another's already."""
        path = self._folder(package).with_suffix(".lock")
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    break
            os.close(descriptor)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _is_locked(self, package: str) -> bool:
        try:
            descriptor = os.open(self._folder(package).with_suffix(".lock"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def _is_checked(self, folder: Path, files: dict[str, dict[str, Any]]) -> bool:
        """Compare the checksums unless this run of the engine has done so."""
        mark = folder / CHECKED
        with contextlib.suppress(FileNotFoundError):
            if mark.read_text() == self._run:
                return True
        if any(_digest(folder / name) != file["sha256"] for name, file in files.items()):
            return False
        mark.write_text(self._run)
        return True

    def _check_failure(self, package: str) -> None:
        mark = self._mark(package)
        with contextlib.suppress(FileNotFoundError, ValueError):
            failure = orjson.loads(mark.read_bytes())
            if failure["run"] == self._run and time.time() - mark.stat().st_mtime < RETRY_SECONDS:
                raise InvalidModel(
                    "the weights of the model could not be put into shared memory", detail=failure["reason"]
                )

    def _note_failure(self, package: str, error: Exception) -> None:
        with contextlib.suppress(OSError):  # a full disk is a likely reason
            self._mark(package).write_bytes(orjson.dumps({"run": self._run, "reason": str(error)}))

    def _build(self, package: str, build: Build) -> MappedGraph:
        draft = Path(tempfile.mkdtemp(dir=self._root, prefix=DRAFT_PREFIXES[0] + owners.prefix()))
        try:
            build(draft / GRAPH_NAME, WEIGHTS_NAME)
            initializers, prepacked = measure(draft / GRAPH_NAME)
            names = sorted(path.name for path in draft.iterdir())
            files = {n: {"size": (draft / n).stat().st_size, "sha256": _digest(draft / n)} for n in names}
            manifest = {
                "package": package, "files": files, "metadata_bytes": files[GRAPH_NAME]["size"],
                "initializer_bytes": initializers, "prepacked_bytes": prepacked,
            }  # fmt: skip
            (draft / MANIFEST).write_bytes(orjson.dumps(manifest))
            (draft / CHECKED).write_text(self._run)
            draft.rename(self._folder(package))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return _from_manifest(self._folder(package), manifest)


def measure(graph: Path) -> tuple[int, int]:
    """Return the bytes of plain and of prepacked weights in the file beside an optimized graph."""
    plain = prepacked = 0
    for tensor in onnx.load(str(graph), load_external_data=False).graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "length":
                plain += int(entry.value)
            elif entry.key.startswith("prepacked"):
                prepacked += sum(int(part.split(";")[1]) for part in entry.value.split("|")[1:])
    return plain, prepacked


def _entry(package: str, status: str, pins: list[int], graph: MappedGraph | None = None) -> dict[str, Any]:
    return {
        "package": package,
        "status": status,
        "metadata_bytes": graph.metadata_bytes if graph else 0,
        "initializer_bytes": graph.initializer_bytes if graph else 0,
        "prepacked_bytes": graph.prepacked_bytes if graph else 0,
        "pins": len(pins),
        "address": f"{pins[0]:016X}" if pins else None,
    }


def _from_manifest(folder: Path, manifest: dict[str, Any]) -> MappedGraph:
    sizes = (manifest[f"{kind}_bytes"] for kind in ("metadata", "initializer", "prepacked"))
    return MappedGraph(manifest["package"], folder, *sizes)


def _sizes_match(folder: Path, files: dict[str, dict[str, Any]]) -> bool:
    return all((folder / name).stat().st_size == file["size"] for name, file in files.items())


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def machine_name() -> str:
    """Return a short name for what prepacked weights depend on: ONNX Runtime's version and the processor's abilities."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    kinds = ("flags", "model name", "Features", "CPU part")  # x86 has the first two, ARM the others
    facts = sorted({line for line in lines if line.startswith(kinds)})
    version = importlib.metadata.version("onnxruntime")
    return hashlib.sha256("\n".join([version, *facts]).encode()).hexdigest()[:16]
