"""The open models of a worker: who shares the weights of a package, and when they go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pythiadb.engine import models
from pythiadb.engine.cached import CachedPackage
from pythiadb.engine.models import KEEP_SECONDS, ModelRegistry
from pythiadb.models.package import Spec

KEY = "d" * 64


class Shared:
    """Stands in for the files of shared weights; counts how often they are made."""

    bytes = 0
    graph = Path("graph.onnx")

    def __init__(self) -> None:
        self.is_there = False
        self.made = 0

    def find(self, _package: str) -> Shared | None:
        return self if self.is_there else None

    def make(self, _package: str, _build: object) -> Shared:
        self.is_there = True
        self.made += 1
        return self

    def remove(self, _package: str) -> None:
        self.is_there = False

    def address(self) -> int:
        return 0


class Clock:
    """The time, which passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = time = monotonic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(models, "time", made)
    return made


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def registry(shared: Shared, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    """A registry whose models are nothing but names, with a package in its cache."""
    monkeypatch.setattr(ModelRegistry, "_open_graph", lambda *_: object())
    monkeypatch.setattr(Spec, "from_json", lambda spec: spec)
    package = CachedPackage(KEY, Path(), {}, ())
    stores: Any = SimpleNamespace(cache=SimpleNamespace(package=lambda _key: package), mapped=shared)
    settings: Any = SimpleNamespace(max_models=2)
    guard: Any = None
    return ModelRegistry(stores, settings, guard, lambda _model: None)


def tidy(registry: ModelRegistry) -> None:
    """What a worker does every now and then."""
    registry.close_unmapped()
    for key in registry.unwanted():
        registry.reclaim_unwanted(key)


def test_who_does_not_ask_for_shared_weights_uses_them(
    registry: ModelRegistry, shared: Shared, clock: Clock
) -> None:
    """Two databases have the package; the one that wants it in memory may be silent for as long as it likes."""
    opened = registry.get(KEY, "one", True)
    for _ in range(3):
        clock.now += 10 * KEEP_SECONDS
        tidy(registry)
        assert registry.opened(KEY, "other", False) is opened
        assert registry.get(KEY, "other", False) is opened
    assert registry.opened(KEY, "one", True) is opened
    assert shared.is_there
    assert shared.made == 1


def test_private_weights_do_not_serve_who_wants_to_share(registry: ModelRegistry, shared: Shared) -> None:
    private = registry.get(KEY, "other", False)
    assert private.mapped is None
    assert registry.opened(KEY, "one", True) is None
    opened = registry.get(KEY, "one", True)
    assert opened.mapped is not None
    assert shared.made == 1
    assert not registry.is_open(private)
    assert registry.is_open(opened)


def test_weights_go_some_time_after_the_last_wish(
    registry: ModelRegistry, shared: Shared, clock: Clock
) -> None:
    opened = registry.get(KEY, "one", True)
    registry.get(KEY, "other", True)
    registry.opened(KEY, "one", False)
    clock.now += 2 * KEEP_SECONDS
    tidy(registry)
    assert registry.is_open(opened)  # the other wants them
    registry.opened(KEY, "other", False)
    tidy(registry)
    assert not registry.is_open(opened)
    assert not shared.is_there
    assert registry.get(KEY, "one", False).mapped is None


def test_old_statement_and_new_ones_in_turn(registry: ModelRegistry, shared: Shared, clock: Clock) -> None:
    """A statement goes on asking as its snapshot says, for as long as it lasts."""
    opened = registry.get(KEY, "one", True)
    for _ in range(10):
        clock.now += 0.6 * KEEP_SECONDS
        assert registry.get(KEY, "one", False) is opened
        tidy(registry)
        assert registry.get(KEY, "one", True) is opened
    assert shared.made == 1


def test_wish_in_the_last_moment_keeps_them(registry: ModelRegistry, clock: Clock) -> None:
    opened = registry.get(KEY, "one", True)
    registry.opened(KEY, "one", False)
    clock.now += 2 * KEEP_SECONDS
    assert registry.unwanted() == [KEY]
    registry.opened(KEY, "one", True)
    registry.reclaim_unwanted(KEY)
    assert registry.is_open(opened)


def test_weights_that_others_deleted_are_made_anew(registry: ModelRegistry, shared: Shared) -> None:
    """A database stops sharing and another one has not; nor does an old wish bring them back."""
    registry.get(KEY, "one", True)
    registry.reclaim(KEY)
    assert registry.all() == []
    assert registry.get(KEY, "one", False).mapped is None
    assert registry.get(KEY, "other", True).mapped is not None
    assert shared.made == 2
