"""The libraries of the extra `train`: what is said where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pythiadb.errors import FeatureNotSupported

_LIBRARIES = ("torch", "pyarrow", "matplotlib")


@contextmanager
def train_extra(purpose: str) -> Iterator[None]:
    """Stand around an import that reaches torch, pyarrow or matplotlib.

    Raise FeatureNotSupported, with the command that installs them, when one is missing; `purpose` begins the message, like
    "reading ratings".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _LIBRARIES:
            raise
        raise FeatureNotSupported(
            f"{purpose} needs the package {error.name}",
            hint="Run: pip install 'pythiadb[train]'",
        ) from error
