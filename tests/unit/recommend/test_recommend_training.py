from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.recommend import checkpoints, storing
from pythiadb.recommend.devices import limited_threads
from pythiadb.recommend.factors import Factors
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.split import Split, split_ratings
from pythiadb.recommend.training import Epoch, Settings, Step, Trained, train
from tests.unit.recommend.low_rank import NOISE, low_rank

QUICK = Settings(dimensions=8, batch_rows=512, max_epochs=6, threads=1)


def weights(trained: Trained) -> list[np.ndarray[Any, Any]]:
    return [getattr(trained.factors, name) for name in Factors.__slots__[3:]]


def same_weights(one: Trained, other: Trained) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def without_times(history: tuple[Epoch, ...]) -> str:
    """Return the passes without what a clock says; as text, since NaN is not equal to itself."""
    return repr([replace(epoch, seconds=0, ratings_per_second=0) for epoch in history])


def test_the_structure_of_made_ratings_is_found() -> None:
    ratings = low_rank()
    trained = train(ratings, replace(QUICK, max_epochs=40, regularization=0.02))
    spread = float(ratings.values.std())
    best = trained.history[trained.best_epoch - 1]
    assert best.validation_rmse < 1.4 * NOISE < 0.4 * spread
    assert best.train_rmse < best.validation_rmse
    assert trained.history[0].train_loss > best.train_loss


def test_the_best_weights_are_kept_and_training_ends_when_nothing_improves() -> None:
    ratings = low_rank(count=4_000)
    settings = replace(QUICK, max_epochs=80, patience=3, regularization=0.0, dropout=0.0)
    trained = train(ratings, settings)
    errors = [epoch.validation_rmse for epoch in trained.history]
    assert len(errors) == trained.best_epoch + settings.patience < settings.max_epochs
    assert min(errors) == errors[trained.best_epoch - 1]
    held_back = split_ratings(ratings, share=0.1, by="random", seed=0).validation
    predicted = trained.factors.predict(ratings.users[held_back], ratings.items[held_back])
    assert math.sqrt(np.mean((predicted - ratings.values[held_back]) ** 2)) == pytest.approx(min(errors))
    rates = [epoch.learning_rate for epoch in trained.history]
    assert rates[0] == settings.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


def test_training_ends_when_the_learning_rate_is_spent() -> None:
    settings = replace(QUICK, max_epochs=80, patience=80, regularization=0.0, dropout=0.0)
    rates = [epoch.learning_rate for epoch in train(low_rank(count=4_000), settings).history]
    assert len(rates) < settings.max_epochs
    assert rates[-1] < 0.02 * rates[0]


def test_a_rate_that_does_not_fall_stays() -> None:
    settings = replace(QUICK, max_epochs=10, patience=80, regularization=0.0, dropout=0.0, falling_rate=False)
    rates = [epoch.learning_rate for epoch in train(low_rank(count=4_000), settings).history]
    assert rates == [settings.learning_rate] * settings.max_epochs


def test_regularization_and_dropout_keep_training_and_validation_errors_together() -> None:
    ratings = low_rank(count=4_000)
    free = replace(QUICK, max_epochs=40, patience=40, regularization=0.0, dropout=0.0)
    gaps = []
    for settings in (free, replace(free, dropout=0.3), replace(free, regularization=0.1)):
        last = train(ratings, settings).history[-1]
        gaps.append(last.validation_rmse - last.train_rmse)
    assert gaps[1] < 0.9 * gaps[0]
    assert gaps[2] < 0.9 * gaps[0]


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    ratings = low_rank()
    state = torch.get_rng_state()
    one, two = train(ratings, QUICK), train(ratings, QUICK)
    assert same_weights(one, two)
    assert without_times(one.history) == without_times(two.history)
    assert not same_weights(one, train(ratings, replace(QUICK, seed=1)))
    assert torch.equal(torch.get_rng_state(), state)  # others' random numbers are left alone


@pytest.mark.parametrize(
    ("low", "factor", "error"),
    [
        (0, 0.25, 0.0),  # a power of two rounds nothing
        (1, 0.25, 1e-5),  # ratings of 1 to 5 as 0 to 1
        (0, 20.0, 1e-5),
        (0, 1e-6, 1e-5),
    ],
)
def test_the_scale_of_the_ratings_does_not_matter(low: float, factor: float, error: float) -> None:
    """Vectors of items are the same, what belongs to a user has the ratings' unit, and so have the errors."""
    ratings = low_rank()
    values = (factor * (ratings.values.astype(np.float64) - low)).astype(np.float32)
    one, other = train(ratings, QUICK), train(replace(ratings, values=values), QUICK)
    for name, unit in (("item_vectors", 1), ("user_vectors", factor), ("item_bias", factor), ("user_bias", factor)):  # fmt: skip
        found, expected = getattr(other.factors, name) / unit, getattr(one.factors, name)
        np.testing.assert_allclose(found, expected, rtol=0, atol=error)
    assert np.linalg.norm(one.factors.item_vectors, axis=1).mean() > 0.1
    everyone = np.arange(len(ratings.user_ids))
    lists = [np.argsort(-trained.factors.scores(everyone))[:, :10] for trained in (one, other)]
    assert np.array_equal(*lists)
    for mine, its in zip(one.history, other.history, strict=True):
        assert its.learning_rate == mine.learning_rate
        assert (its.validation_rmse / factor, its.train_rmse / factor) == pytest.approx(
            (mine.validation_rmse, mine.train_rmse), rel=1e-5
        )
        assert (its.validation_loss / factor**2, its.train_loss / factor**2) == pytest.approx(
            (mine.validation_loss, mine.train_loss), rel=1e-5
        )


def test_small_ratings_are_learned_as_well_as_large_ones() -> None:
    """The error is the same share of their standard deviation; one penalty for both would have left the small ones no vectors."""
    ratings = low_rank()
    settings = replace(QUICK, max_epochs=30)
    shares = []
    for values in (ratings.values, (ratings.values - 3.5) / 100):
        trained = train(replace(ratings, values=values), settings)
        shares.append(trained.history[trained.best_epoch - 1].validation_rmse / values.std())
    assert shares[0] < 0.5
    assert shares[1] == pytest.approx(shares[0], rel=0.001)


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0, 1e6])
def test_ratings_that_are_all_alike(value: float) -> None:
    ratings = low_rank(count=4_000)
    alike = replace(ratings, values=np.full_like(ratings.values, value))
    trained = train(alike, replace(QUICK, max_epochs=2))
    assert np.array_equal(trained.factors.predict(ratings.users, ratings.items), alike.values)
    assert all(np.isfinite(table).all() for table in weights(trained))


def test_what_is_known_of_users_and_items_is_kept() -> None:
    ratings = low_rank()
    trained = train(ratings, replace(QUICK, max_epochs=1))
    assert trained.user_ids.equals(ratings.user_ids)
    assert trained.item_ids.equals(ratings.item_ids)
    assert trained.notes == ratings.notes
    assert trained.factors.user_vectors.shape == (300, 8)
    assert trained.factors.item_vectors.shape == (200, 8)
    chosen = ratings.values[split_ratings(ratings, share=0.1, by="random", seed=0).train]
    assert trained.factors.mean == pytest.approx(chosen.mean(dtype=np.float64))
    assert (trained.factors.lowest, trained.factors.highest) == (chosen.min(), chosen.max())


def test_the_latest_ratings_are_held_back_by_time() -> None:
    ratings = low_rank()
    trained = train(ratings, replace(QUICK, split="time", max_epochs=1))
    split = split_ratings(ratings, share=0.1, by="time", seed=0)
    predicted = trained.factors.predict(ratings.users[split.validation], ratings.items[split.validation])
    error = math.sqrt(np.mean((predicted - ratings.values[split.validation]) ** 2))
    assert trained.history[0].validation_rmse == pytest.approx(error)


def test_without_validation_all_passes_run_and_the_last_weights_count() -> None:
    trained = train(low_rank(), replace(QUICK, validation_share=0, patience=1))
    assert trained.best_epoch == len(trained.history) == QUICK.max_epochs
    assert all(math.isnan(epoch.validation_rmse) for epoch in trained.history)


def alone(count: int) -> Ratings:
    """Return ratings of as many users as items, each with one."""
    places = np.arange(count, dtype=np.int32)
    ids = pa.array(range(count), pa.int64())
    return Ratings(places, places, np.linspace(1, 5, count, dtype=np.float32), None, ids, ids, ("read",))


@pytest.mark.parametrize(
    ("count", "note"),
    [
        (50, "held out 0 of the 5 ratings wanted: every user and item keeps a rating; no early stopping, the last pass counts"),
        (4, "held out no ratings: a share of 0.1 of 4 is less than one; no early stopping, the last pass counts"),
    ],
)  # fmt: skip
def test_a_note_says_that_nothing_could_be_held_out(count: int, note: str, tmp_path: Path) -> None:
    trained = train(alone(count), QUICK, folder=tmp_path)
    assert trained.notes == storing.load(tmp_path).notes == ("read", note)
    assert trained.best_epoch == QUICK.max_epochs
    assert train(alone(count), replace(QUICK, validation_share=0)).notes == ("read",)
    everything = Split(np.arange(count), np.arange(0))
    assert train(alone(count), QUICK, split=everything).notes == ("read",)


def test_one_rating_is_enough() -> None:
    ratings = replace(
        low_rank(users=1, items=1, count=1), user_ids=pa.array(["ann"]), item_ids=pa.array(["Brazil"])
    )
    trained = train(ratings, replace(QUICK, max_epochs=2))
    assert trained.factors.predict(np.array([0]), np.array([0])) == ratings.values


def test_who_asks_is_told_how_far_it_is() -> None:
    steps: list[Step] = []
    epochs: list[Epoch] = []
    settings = replace(QUICK, batch_rows=8, max_epochs=2)
    trained = train(low_rank(count=4_000), settings, on_step=steps.append, on_epoch=epochs.append)
    assert tuple(epochs) == trained.history
    assert [epoch.number for epoch in epochs] == [1, 2]
    told = [(step.epoch, step.share) for step in steps]
    assert told == sorted(told)
    assert all(0 < step.share <= 1 and step.loss > 0 for step in steps)
    assert {step.epoch for step in steps} <= {1, 2}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("validation_share", [0.1, 0.0])
@pytest.mark.parametrize("broken_off", [1, 3])
def test_a_training_that_goes_on_is_the_one_without_a_break(
    tmp_path: Path, broken_off: int, validation_share: float
) -> None:
    ratings = low_rank()
    settings = replace(QUICK, validation_share=validation_share)

    def stop(epoch: Epoch) -> None:
        if epoch.number == broken_off:
            raise Stopped

    with pytest.raises(Stopped):
        train(ratings, settings, folder=tmp_path, on_epoch=stop)
    assert list(tmp_path.iterdir()) == [tmp_path / checkpoints.FILE]
    seen: list[int] = []
    resumed = train(
        ratings, settings, folder=tmp_path, resume=True, on_epoch=lambda epoch: seen.append(epoch.number)
    )
    assert seen == list(range(broken_off + 1, settings.max_epochs + 1))
    whole = train(ratings, settings)
    assert same_weights(resumed, whole)
    assert without_times(resumed.history) == without_times(whole.history)
    assert same_weights(storing.load(tmp_path), whole)


def test_more_passes_may_follow_a_finished_training(tmp_path: Path) -> None:
    ratings = low_rank()
    train(ratings, replace(QUICK, max_epochs=2), folder=tmp_path, resume=True)
    longer = train(ratings, QUICK, folder=tmp_path, resume=True)
    assert same_weights(longer, train(ratings, QUICK))


def test_without_resuming_a_training_begins_anew(tmp_path: Path) -> None:
    ratings = low_rank()
    train(ratings, replace(QUICK, max_epochs=2), folder=tmp_path)
    assert len(train(ratings, replace(QUICK, max_epochs=1), folder=tmp_path).history) == 1


@pytest.mark.parametrize(
    ("settings", "seed", "message"),
    [
        (replace(QUICK, learning_rate=0.5), 0, "learning_rate was 0.02, is 0.5"),
        (replace(QUICK, dimensions=4), 0, "dimensions was 8, is 4"),
        (QUICK, 1, "of other ratings"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, settings: Settings, seed: int, message: str
) -> None:
    train(low_rank(), replace(QUICK, max_epochs=1), folder=tmp_path)
    with pytest.raises(InvalidParameter, match=message):
        train(low_rank(seed=seed), settings, folder=tmp_path, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(low_rank(), replace(QUICK, max_epochs=1), folder=tmp_path)
    path = tmp_path / checkpoints.FILE
    whole = path.read_bytes()
    for bad in (b"", whole[:1000], whole[:-1], b"\x80\x04" + whole):
        path.write_bytes(bad)
        with pytest.raises(InvalidModel, match="cannot be read"):
            train(low_rank(), QUICK, folder=tmp_path, resume=True)


def test_a_checkpoint_whose_weights_are_in_another_unit_is_refused(tmp_path: Path) -> None:
    """Earlier versions trained on the ratings as they are."""
    train(low_rank(), replace(QUICK, max_epochs=1), folder=tmp_path)
    found = checkpoints.read(tmp_path)
    assert found is not None
    facts, tensors = found
    checkpoints.write(tmp_path, {name: facts[name] for name in facts if name != "unit"}, tensors)
    with pytest.raises(InvalidParameter, match="an earlier version"):
        train(low_rank(), QUICK, folder=tmp_path, resume=True)


def test_a_loss_that_is_no_number_leaves_what_was_there(tmp_path: Path) -> None:
    wild = replace(QUICK, learning_rate=1e18)
    with pytest.raises(InvalidParameter, match="not a number any more") as raised:
        train(low_rank(), wild, folder=tmp_path / "empty")
    assert raised.value.hint == "Lower the learning rate, now 1e+18."
    assert not (tmp_path / "empty").exists()
    train(low_rank(), QUICK, folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InvalidParameter, match="not a number any more"):
        train(low_rank(), wild, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["dimensions", "batch_rows", "max_epochs", "patience", "threads"], [0, -1]),
        *itertools.product(["learning_rate", "regularization"], [-0.1, math.nan, math.inf]),
        *itertools.product(["dropout", "validation_share"], [-0.1, 1.0, math.nan]),
        ("dimensions", 16_001),
        ("learning_rate", 0.0),
        ("split", "alphabetical"),
        ("seed", -1),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter, match=name):
        Settings(**{name: value})


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InvalidParameter, match=f'the device "{device}" cannot be used'):
        train(low_rank(), replace(QUICK, device=device))


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    train(low_rank(), replace(QUICK, max_epochs=1, threads=before + 1))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("threads", "batch_rows", "expected"),
    [(None, None, 1), (None, 16_383, 1), (None, 16_384, 3), (2, None, 2), (1, 16_384, 1)],
)
def test_small_batches_have_one_thread_if_none_are_asked_for(
    threads: int | None, batch_rows: int | None, expected: int
) -> None:
    used: list[int] = []
    settings = replace(QUICK, max_epochs=1, threads=threads, batch_rows=batch_rows)
    with limited_threads(3):
        train(low_rank(), settings, on_epoch=lambda _: used.append(torch.get_num_threads()))
    assert used == [expected]


WITHOUT_TORCH = """
import sys
from pythiadb.recommend.training import Settings, train
from pythiadb.recommend import storing
from tests.unit.recommend.low_rank import low_rank
assert "torch" not in sys.modules
sys.modules["torch"] = None
try:
    train(low_rank(), Settings())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_pytorch_the_error_says_how_to_get_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert "FeatureNotSupported training needs the package torch" in done.stdout
    assert "pip install 'pythiadb[train]'" in done.stdout
