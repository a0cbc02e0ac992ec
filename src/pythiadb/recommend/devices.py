"""Where PyTorch computes, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pythiadb.errors import InvalidParameter


def chosen_device(name: str) -> torch.device:
    """Return a device by its name; "auto" is a GPU where there is one. Raise InvalidParameter when it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the library asserts that it was built for the device
        raise InvalidParameter(
            f'the device "{name}" cannot be used', detail=f"{error}".splitlines()[0]
        ) from error
    return device


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads for a while; None leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
