"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pythiadb.errors import UnwritableFile
from pythiadb.index.container import sync_path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; afterwards it is on disk and takes the place of `path`, or nothing has changed.

    The folder is made when it is missing. What a killed process left beside is overwritten by the next one. Raise UnwritableFile
    where the system refuses: the disk is full, the folder is somebody else's.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        sync_path(draft)
        draft.replace(path)
        sync_path(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError | SafetensorError):
            reason = getattr(error, "strerror", None) or error
            raise UnwritableFile(f'file "{path}" cannot be written', detail=f"{reason}.") from error
        raise
