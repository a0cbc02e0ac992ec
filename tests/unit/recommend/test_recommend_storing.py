from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythiadb.errors import InvalidModel, UndefinedFile, UnwritableFile
from pythiadb.recommend import storing
from pythiadb.recommend.factors import Factors
from pythiadb.recommend.files import replacing
from pythiadb.recommend.training import Epoch, Settings, Trained

FUZZED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def some_recommender(seed: int = 0, *, user_ids: pa.Array | None = None) -> Trained:
    draw = np.random.default_rng(seed)
    return Trained(
        factors=Factors(
            mean=3.53,
            lowest=0.5,
            highest=5.0,
            user_bias=draw.normal(size=3).astype(np.float32),
            item_bias=draw.normal(size=2).astype(np.float32),
            user_vectors=draw.normal(size=(3, 4)).astype(np.float32),
            item_vectors=draw.normal(size=(2, 4)).astype(np.float32),
        ),
        user_ids=pa.array([3, 7, 9]) if user_ids is None else user_ids,
        item_ids=pa.array(["Amélie", "Brazil"]),
        settings=Settings(dimensions=4, threads=1),
        history=(
            Epoch(1, 0.9, 0.95, 0.81, 0.9025, 0.01, 1.5, 60_000.0),
            Epoch(2, 0.8, float("nan"), 0.64, float("nan"), 0.003, 1.25, 70_000.0),
        ),
        best_epoch=1,
        notes=("12 duplicates: the last rating counts",),
        user_weight=2.5,
        fingerprint="5f" * 32,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    storing.save(some_recommender(), tmp_path / "taste")
    return tmp_path / "taste"


@pytest.mark.parametrize(
    "user_ids",
    [
        pa.array([3, 7, 2**62]),
        pa.array(["6f1c2a04-98f2-4f0a-9f0e-6a5f0c1b2d3e", "ann", "bob"]),
    ],
)
def test_what_was_saved_is_loaded(tmp_path: Path, user_ids: pa.Array) -> None:
    saved = some_recommender(user_ids=user_ids)
    storing.save(saved, str(tmp_path / "new" / "taste"))
    loaded = storing.load(str(tmp_path / "new" / "taste"))
    for name in Factors.__slots__:
        np.testing.assert_array_equal(getattr(loaded.factors, name), getattr(saved.factors, name))
    assert loaded.user_ids.equals(saved.user_ids)
    assert loaded.item_ids.equals(saved.item_ids)
    assert (loaded.settings, loaded.best_epoch, loaded.notes) == (saved.settings, 1, saved.notes)
    assert (loaded.user_weight, loaded.fingerprint) == (saved.user_weight, saved.fingerprint)
    assert repr(loaded.history) == repr(saved.history)  # NaN is not equal to itself


@pytest.mark.parametrize("name", [storing.FACTS, storing.WEIGHTS, storing.USERS, storing.ITEMS])
def test_a_folder_that_lacks_a_file_says_so(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UndefinedFile, match=name):
        storing.load(folder)


@FUZZED
@given(data=st.data())
def test_any_changed_byte_of_weights_and_ids_is_noticed(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from([storing.WEIGHTS, storing.USERS, storing.ITEMS]))
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    with pytest.raises(InvalidModel, match=f"{path.name} is damaged"):
        storing.load(folder)
    path.write_bytes(whole)
    storing.load(folder)


@FUZZED
@given(data=st.data())
def test_a_cut_file_is_noticed(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InvalidModel):
        storing.load(folder)
    path.write_bytes(whole)


def test_files_of_two_trainings_are_not_taken_for_one(folder: Path, tmp_path: Path) -> None:
    storing.save(some_recommender(seed=1), tmp_path / "other")
    shutil.copy(tmp_path / "other" / storing.WEIGHTS, folder)
    with pytest.raises(InvalidModel, match="of another training"):
        storing.load(folder)


def test_saving_again_replaces_all_files(folder: Path) -> None:
    again = replace(some_recommender(seed=1), user_ids=pa.array(["x", "y", "z"]))
    storing.save(again, folder)
    assert storing.load(folder).user_ids.to_pylist() == ["x", "y", "z"]
    names = {storing.FACTS, storing.WEIGHTS, storing.USERS, storing.ITEMS}
    assert {path.name for path in folder.iterdir()} == names


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", [storing.FACTS, storing.WEIGHTS, storing.USERS, storing.ITEMS])
def test_pickled_code_is_not_run(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidModel):
        storing.load(folder)
    assert not (folder / "exploded").exists()


def test_a_file_that_is_not_written_whole_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replacing(path) as draft:
        draft.write_bytes(b"first")
    with pytest.raises(KeyboardInterrupt), replacing(path) as draft:
        draft.write_bytes(b"sec")
        raise KeyboardInterrupt
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"first"


FULL = """
import pathlib, resource, sys
from pythiadb.errors import UnwritableFile
from pythiadb.recommend import training
from tests.unit.recommend.low_rank import low_rank
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    training.train(low_rank(), training.Settings(dimensions=8, max_epochs=1, threads=1), folder=sys.argv[1])
except UnwritableFile as error:
    print(error.message)
"""


def test_where_no_more_can_be_written_it_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"a file")
    with pytest.raises(UnwritableFile, match="cannot be written") as caught:
        storing.save(some_recommender(), tmp_path / "taken" / "taste")
    assert caught.value.detail == "Not a directory."
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"first")
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], check=True, capture_output=True, text=True)
    assert done.stdout == f'file "{path}" cannot be written\n'
    assert path.read_bytes() == b"first"
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "taken"]


WRITER = """
import os, pathlib, sys
from pythiadb.recommend.files import replacing
with replacing(pathlib.Path(sys.argv[1])) as draft:
    draft.write_bytes(b"half of the sec")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_writer_changes_nothing_and_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    done = subprocess.run([sys.executable, "-c", WRITER, path], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"first"
    with replacing(path) as draft:
        draft.write_bytes(b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]
