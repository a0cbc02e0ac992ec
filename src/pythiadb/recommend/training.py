"""Training a recommender: what can be set, what is told on the way, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pythiadb.errors import InvalidParameter
from pythiadb.recommend.extra import train_extra
from pythiadb.recommend.factors import Factors
from pythiadb.recommend.ratings import Ratings, read_ratings
from pythiadb.recommend.split import Split, fingerprint, shortfall, split_ratings
from pythiadb.vectors.dense import MAX_DIMENSIONS

if TYPE_CHECKING:
    import pyarrow as pa


BIAS_PENALTY = 0.3  # share of lambda that holds for biases


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. Raises InvalidParameter for a value that makes no sense.

    dimensions        length of a vector
    dropout           share of a vector's components that is left out, anew for each rating
    learning_rate     of Adam; a third of it each time the error on the validation ratings no longer falls
    falling_rate      whether it does so; without, the learning rate stays
    regularization    how strongly weights are drawn to 0: lambda in what pythiadb.recommend.loop minimises. Like the learning rate it does
                      not depend on the scale of the ratings
    batch_rows        ratings a step; None: by their number
    max_epochs        passes over the ratings at most; training also ends when the learning rate has fallen below 0.5 % of the first
    patience          passes without a better error on the validation ratings after which training ends
    validation_share  share of the ratings that is held back; 0: none, then all passes are run and the last weights count
    split             "random", or "time": the latest ratings are held back
    seed              the same seed, ratings and machine give the same weights
    threads           processors; None: one for batches of fewer than 16,384 ratings, else all. They give the same weights
    device            "cpu", "cuda", or "auto": a GPU where there is one
    """

    dimensions: int = 64
    dropout: float = 0.15
    learning_rate: float = 0.02
    falling_rate: bool = True
    regularization: float = 0.12
    batch_rows: int | None = None
    max_epochs: int = 60
    patience: int = 4
    validation_share: float = 0.1
    split: Literal["random", "time"] = "random"
    seed: int = 0
    threads: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("dimensions", "batch_rows", "max_epochs", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidParameter(f"{name} must be at least 1, not {value}")
        if self.dimensions > MAX_DIMENSIONS:
            raise InvalidParameter(f"dimensions must be at most {MAX_DIMENSIONS}, not {self.dimensions}")
        if not 0 < self.learning_rate < math.inf:
            raise InvalidParameter(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.regularization < math.inf:
            raise InvalidParameter(f"regularization must be 0 or more, not {self.regularization}")
        for name in ("dropout", "validation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be from 0 to below 1, not {getattr(self, name)}")
        if self.split not in ("random", "time"):
            raise InvalidParameter(f'split must be "random" or "time", not "{self.split}"')
        if self.seed < 0:
            raise InvalidParameter(f"seed must be 0 or more, not {self.seed}")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training ratings.

    number               from 1
    train_rmse           error of the predictions after the pass on training ratings (up to a million of them, always the same)
    validation_rmse      the same on the validation ratings; NaN where there are none
    train_loss           mean squared error during the pass, dropout included
    validation_loss      mean squared error on the validation ratings before clipping; NaN where there are none
    learning_rate        of this pass
    seconds              the pass with what belongs to it: measuring errors, writing the checkpoint of the pass before
    ratings_per_second   of the pass alone
    """

    number: int
    train_rmse: float
    validation_rmse: float
    train_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float
    ratings_per_second: float

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Epoch:
        """Read what asdict() gave; JSON has no NaN and says null."""
        read: dict[str, Any] = {k: math.nan if value is None else value for k, value in values.items()}
        return cls(**read)


@dataclass(frozen=True, slots=True)
class Step:
    """Where the training is: the pass, the share of it that is done (0 to 1), its mean loss so far."""

    epoch: int
    share: float
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained recommender: weights of the best pass, and the ids that positions stand for (Arrow arrays).

    `user_weight` is the number of ratings in training over the sum of the roots of how many each user has: for a user with n ratings
    lambda · user_weight · √n stands before the square of his vector, beside the sum of his squared errors (see loop.py).
    `fingerprint` is a hash of the ratings and of which were held out: evaluate() tells by it whether it has the same.
    """

    factors: Factors
    user_ids: pa.Array
    item_ids: pa.Array
    settings: Settings
    history: tuple[Epoch, ...]
    best_epoch: int
    notes: tuple[str, ...]
    user_weight: float
    fingerprint: str


def train(
    ratings: Ratings | Any,
    settings: Settings | None = None,
    *,
    split: Split | None = None,
    folder: str | PathLike[str] | None = None,
    resume: bool = False,
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Learn vectors and biases of users and items from ratings (or what read_ratings() takes) by matrix factorization.

    `split` says which ratings are held back, instead of `settings`; without it, the notes say where fewer are than `settings` ask for.
    The scale of the ratings does not matter: those of 0 to 1 give the same lists as the same ones of 1 to 5. With a `folder`, each pass leaves a checkpoint there and the
    end the result, as storing.load() reads it; `resume` goes on from the checkpoint, if there is one, to what a training without
    a break would have given. `on_step` is told about ten times a second where the training is, `on_epoch` each pass.

    Raise FeatureNotSupported without PyTorch; InvalidParameter when the loss is no number any more, when there is nothing to
    train on, or when the checkpoint is of other ratings or settings. The checkpoint of the last good pass stays then.
    """
    from pythiadb.recommend import storing

    settings = settings or Settings()
    if not isinstance(ratings, Ratings):
        ratings = read_ratings(ratings)
    with train_extra("training"):
        from pythiadb.recommend import loop
    notes = ratings.notes
    if split is None:
        split = split_ratings(ratings, share=settings.validation_share, by=settings.split, seed=settings.seed)
        notes += _about_split(split, settings)
    if not len(split.train):
        raise InvalidParameter("there are no ratings to train on")
    place = None if folder is None else Path(folder)
    hashed = fingerprint(ratings, split)
    outcome = loop.run(
        ratings, split, settings,
        fingerprint=hashed, folder=place, resume=resume, on_step=on_step, on_epoch=on_epoch,
    )  # fmt: skip
    trained = Trained(
        factors=outcome.factors,
        user_ids=ratings.user_ids,
        item_ids=ratings.item_ids,
        settings=settings,
        history=outcome.history,
        best_epoch=outcome.best_epoch,
        notes=notes,
        user_weight=len(split.train) / float(np.sqrt(np.bincount(ratings.users[split.train])).sum()),
        fingerprint=hashed,
    )
    if place is not None:
        storing.save(trained, place)
    return trained


def _about_split(split: Split, settings: Settings) -> tuple[str, ...]:
    """Return a note where fewer ratings are held out than the settings ask for."""
    reason = shortfall(split, settings.validation_share)
    if reason is None:
        return ()
    return (reason if len(split.validation) else f"{reason}; no early stopping, the last pass counts",)
