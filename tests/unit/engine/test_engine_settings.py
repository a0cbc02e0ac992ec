"""The engine's settings: defaults, environment, overrides, limits."""

from __future__ import annotations

from dataclasses import fields

import pytest

from pythiadb.engine.settings import SETTINGS, Settings, load, parse
from pythiadb.errors import InvalidParameter


def test_every_setting_has_a_default_within_its_limits() -> None:
    assert [s.name for s in SETTINGS] == [f.name for f in fields(Settings)]
    for setting in SETTINGS:
        assert parse(setting.name, str(setting.default)) == setting.default
        assert setting.help


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_limits_are_inclusive(setting: object) -> None:
    name, low, high = setting.name, setting.minimum, setting.maximum  # type: ignore[attr-defined]
    assert (parse(name, str(low)), parse(name, str(high))) == (low, high)
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidParameter, match=f'"{name}"'):
            parse(name, str(value))


@pytest.mark.parametrize("text", ["", "x", "1.5", "1e3", "1 GB", "None"])
def test_text_that_is_no_whole_number(text: str) -> None:
    with pytest.raises(InvalidParameter, match='invalid value for engine setting "workers"'):
        parse("workers", text)


def test_unknown_setting_lists_the_known() -> None:
    with pytest.raises(InvalidParameter, match='unrecognized engine setting "worker"') as caught:
        load({"worker": "1"}, {})
    assert "workers, threads" in str(caught.value.hint)


def test_overrides_beat_the_environment_which_beats_the_default() -> None:
    environment = {"PYTHIA_ENGINE_MAX_MODELS": "3", "PYTHIA_ENGINE_LOG_BYTES": "70000", "OTHER": "x"}
    settings = load({"max_models": "4"}, environment)
    assert settings.max_models == 4
    assert settings.log_bytes == 70_000
    assert settings.linger_seconds == 2


def test_wrong_environment_is_named() -> None:
    with pytest.raises(InvalidParameter, match="max_models"):
        load({}, {"PYTHIA_ENGINE_MAX_MODELS": "many"})


def test_zero_chooses_by_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(32)))
    settings = load({}, {})
    assert (settings.workers, settings.threads) == (4, 8)
    assert load({"workers": "2"}, {}).threads == 16
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    assert (load({}, {}).workers, load({}, {}).threads) == (1, 1)
    assert load({"workers": "8"}, {}).threads == 1
