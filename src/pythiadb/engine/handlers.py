"""The commands that handle files and models but run none of them in the worker; all block and are called in threads."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from pythiadb.engine.cached import CachedPackage, FileEntry
from pythiadb.engine.child import ChildDied
from pythiadb.engine.commands import Command
from pythiadb.engine.status import read_all
from pythiadb.engine.vector_memory import read_decisions
from pythiadb.errors import InvalidModel, InvalidParameter, OutOfMemory, TransferFailed
from pythiadb.index.advisor import Contents, advise

if TYPE_CHECKING:
    from pythiadb.engine.session import Session
    from pythiadb.engine.worker import Worker

CHUNK_BYTES = 1 << 20
FETCH_SECONDS = 4 * 3600.0  # a transfer has bounds of its own, this one is behind them

Handler = Callable[["Session", Any, bytes], bytes]


class Handlers:
    """The handlers by verb; each takes the session, the payload's value and the attachment, and returns one line."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._settings = worker.settings
        self._cache = worker.stores.cache
        self._children = worker.stores.children
        self._verbs: dict[str, Handler] = {
            "ping": lambda *_: b"pong",
            "status": self._status,
            "has-file": self._has_file,
            "stage": self._stage,
            "fetch": self._fetch,
            "read-chunk": self._read_chunk,
            "inspect": self._inspect,
            "open": self._open,
            "reclaim": self._reclaim,
            "watch": self._watch,
            "advise": self._advise,
        }

    def __contains__(self, verb: str) -> bool:
        return verb in self._verbs

    def run(self, session: Session, command: Command) -> bytes:
        """Do what a command says and return the line of its answer."""
        try:
            arguments = orjson.loads(command.payload) if command.payload else None
        except orjson.JSONDecodeError as error:  # PostgreSQL wrote it, and its numbers have no bounds
            raise InvalidParameter("a number is out of range", detail=f"{error}.") from None
        return self._verbs[command.verb](session, arguments, command.attachment)

    def _status(self, *_: Any) -> bytes:
        """What all workers say about themselves, and the shared weights."""
        report = read_all(self._worker.folder / "status")
        pins: dict[str, list[int]] = {}
        for model in (model for worker in report["workers"] for model in worker["models"]):
            if model["mapped"]:
                pins.setdefault(model["package"], []).append(model["address"] or 0)
        indexes = {"vector_memory": self._vector_memory()}
        return orjson.dumps(report | {"memory": self._worker.stores.mapped.status(pins)} | indexes)

    def _vector_memory(self) -> dict[str, int]:
        """Return the budget of vector indexes and the bytes that they have of it."""
        decisions = read_decisions(self._worker.index_files.memory)
        return {"budget": self._settings.vector_memory_bytes, "used": decisions.used if decisions else 0}

    def _advise(self, _session: Session, arguments: Any, _attachment: bytes) -> bytes:
        """Say how many bytes a vector index would take, and how many there are."""
        organization, contents, parameters = arguments
        try:
            found = advise(organization, Contents(**contents), parameters)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidParameter("not a description of a vector index", detail=f"{error}.") from None
        return orjson.dumps(found.to_json() | self._vector_memory())

    def _watch(self, session: Session, *_: Any) -> bytes:
        """Have the keeper look into the session's database, which has got a vector index."""
        self._worker.index_files.watch(session.dbname)
        return b"ok"

    def _has_file(self, _session: Session, arguments: Any, _attachment: bytes) -> bytes:
        """Say whether a file's bytes are in the cache."""
        return b"yes" if self._cache.has_file(arguments["sha256"]) else b"no"

    def _stage(self, session: Session, arguments: Any, attachment: bytes) -> bytes:
        """Take one piece of a file, attached in base64."""
        sha256 = arguments["sha256"]
        self._worker.models.check_size(arguments["size"])
        if arguments["no"] == 0:
            session.incoming[sha256] = self._cache.receive(sha256, arguments["size"])
        incoming = session.incoming.get(sha256)
        if incoming is None:
            raise InvalidModel("a piece of a model file arrived without its beginning")
        incoming.append(base64.b64decode(attachment))
        if not incoming.complete:
            return b"more"
        del session.incoming[sha256]
        incoming.finish()
        return b"complete"

    def _fetch(self, _session: Session, arguments: Any, _attachment: bytes) -> bytes:
        """Bring files from an address into the cache; return their names, hashes and sizes."""
        limit = min(
            arguments.get("max_bytes") or self._settings.max_model_bytes, self._settings.max_model_bytes
        )
        with self._cache.workspace() as folder:
            task = {
                "uri": arguments["uri"], "credential": arguments["credential"], "max_bytes": limit, "folder": str(folder),
            }  # fmt: skip
            try:
                paths = self._children.run("fetch", task, FETCH_SECONDS)
            except ChildDied as death:
                raise TransferFailed("the transfer of a model file ended early", detail=f"{death}.") from None
            entries = [self._cache.adopt(Path(path)) for path in paths]
        files = [{"name": e.name, "sha256": e.sha256, "size": e.size} for e in entries]
        return orjson.dumps({"files": files})

    def _read_chunk(self, _session: Session, arguments: Any, _attachment: bytes) -> bytes:
        """Return one MiB of a file in base64; nothing behind its end."""
        if not self._cache.has_file(arguments["sha256"]):
            raise InvalidModel("the engine does not have this model file any more", hint="Load it again.")
        with self._cache.file(arguments["sha256"]).open("rb") as stream:
            stream.seek(arguments["no"] * CHUNK_BYTES)
            return base64.b64encode(stream.read(CHUNK_BYTES))

    def _inspect(self, _session: Session, arguments: Any, _attachment: bytes) -> bytes:
        """Return the spec of a package made of ONNX files, and its files; a graph that had to be changed is in the cache."""
        files = [FileEntry.from_json(f) for f in arguments["files"]]
        missing = next((f.name for f in files if not self._cache.has_file(f.sha256)), None)
        if missing is not None:
            raise InvalidModel(f'the engine does not have the model file "{missing}"')
        with self._cache.workspace() as folder:
            task = {
                "files": {f.name: str(self._cache.file(f.sha256)) for f in files},
                "metadata": arguments["metadata"],
                "max_bytes": self._settings.max_model_bytes,
                "folder": str(folder),
            }
            found = self._look_at("inspect", task)
            if found["graph"] is not None:
                files = [f for f in files if f.name != found["given"]] + [
                    self._cache.adopt(Path(found["graph"]))
                ]
        described = [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in files]
        return orjson.dumps({"spec": found["spec"], "files": described})

    def _open(self, _session: Session, arguments: Any, _attachment: bytes) -> bytes:
        """Assemble a package, check and probe it; return its facts."""
        files = [FileEntry.from_json(f) for f in arguments["files"]]
        self._worker.models.check_size(sum(f.size for f in files))
        package = self._cache.add_package(arguments["package"], arguments["spec"], files)
        try:
            facts = self._look_at("open", self._task(package))
        except Exception:
            self._cache.remove(package.key)
            raise
        return orjson.dumps(facts)

    def _reclaim(self, _session: Session, arguments: Any, _attachment: bytes) -> bytes:
        """Delete the shared weights of a package."""
        self._worker.models.reclaim(arguments[0])
        return b"done"

    def _task(self, package: CachedPackage) -> dict[str, Any]:
        return {
            "folder": str(package.folder),
            "spec": package.spec,
            "files": [f.name for f in package.files],
            "max_bytes": self._settings.max_model_bytes,
            "threads": self._settings.threads,
        }

    def _look_at(self, task: str, arguments: dict[str, Any]) -> Any:
        """Run a check in a throw-away process. Raises InvalidModel when that dies, and what the check raises."""
        seconds = self._settings.probe_seconds
        try:
            return self._children.run(task, arguments, seconds)
        except ChildDied as death:
            if death.timed_out:
                raise InvalidModel(
                    "the check of the model took too long",
                    detail=f"It may take probe_seconds ({seconds} s).",
                    hint="Raise the engine setting probe_seconds.",
                ) from None
            raise InvalidModel(
                "the check of the model crashed",
                detail="The process that opened the model and ran it once ended without an answer.",
            ) from None
        except OutOfMemory:
            raise InvalidModel(
                "the check of the model ran out of memory",
                detail=f"It may use worker_memory_bytes ({self._settings.worker_memory_bytes}).",
                hint="Raise the engine setting worker_memory_bytes.",
            ) from None
