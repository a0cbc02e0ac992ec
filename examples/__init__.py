"""Programs to read and to run."""

from __future__ import annotations
