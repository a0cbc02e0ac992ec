"""A trained recommender beside the baselines, on the ratings that were held out: errors, recall and nDCG, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pythiadb.errors import InvalidParameter
from pythiadb.recommend.baselines import item_mean, popularity
from pythiadb.recommend.metrics import (
    LIST_LENGTH,
    RELEVANT,
    Predictor,
    Ranking,
    ScoreRows,
    mae,
    ranking,
    rmse,
)
from pythiadb.recommend.ratings import Ratings
from pythiadb.recommend.split import Split, fingerprint, split_ratings
from pythiadb.recommend.training import Settings, Trained

MODEL = "trained model"
ITEM_MEAN = "item mean"
POPULARITY = "popularity"


@dataclass(frozen=True, slots=True)
class Line:
    """One recommender: its errors in units of the ratings (None: it predicts no ratings), its lists (None: nothing to judge by)."""

    name: str
    rmse: float | None
    mae: float | None
    ranking: Ranking | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The model and the baselines, in this order, over `held_out` ratings; lists of `k`, judged by ratings of at least `relevant`."""

    lines: tuple[Line, ...]
    held_out: int
    k: int
    relevant: float
    notes: tuple[str, ...]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return names of columns and rows; None where there is no figure."""
        columns = ["", "RMSE", "MAE", f"recall@{self.k}", f"nDCG@{self.k}"]
        return columns, [
            [line.name, line.rmse, line.mae, *([line.ranking.recall, line.ranking.ndcg] if line.ranking else [None, None])]
            for line in self.lines
        ]  # fmt: skip


def evaluate(
    trained: Trained,
    ratings: Ratings,
    split: Split | None = None,
    *,
    k: int = LIST_LENGTH,
    relevant: float = RELEVANT,
) -> Evaluation:
    """Measure a trained recommender on the ratings that it was trained with, by those that were held out.

    `split` is what train() was given, or one whose held-out ratings the training did not see; without it, the split that the settings
    made is made again. Where no held-out rating reaches `relevant`, the lists are not judged, and a note says so.

    Raise InvalidParameter when the ratings have other users or items than those of the training, when they are others or in another
    order and the split is to be made again, or when none were held out.
    """
    if not (trained.user_ids.equals(ratings.user_ids) and trained.item_ids.equals(ratings.item_ids)):
        raise InvalidParameter(
            "these are not the ratings of the training",
            detail=f"It had {len(trained.user_ids):,} users and {len(trained.item_ids):,} items; here are "
            f"{len(ratings.user_ids):,} users and {len(ratings.item_ids):,} items, or others.",
        )
    split = split or _split_again(ratings, trained)
    if not len(split.validation):
        raise InvalidParameter(
            "no ratings were held out",
            hint="Train with a larger validation_share, or give a split; every user and item keeps one rating.",
        )
    judged = bool((ratings.values[split.validation] >= relevant).any())

    def line(name: str, predictor: Predictor | None, scores: ScoreRows) -> Line:
        return Line(
            name,
            rmse(predictor, ratings, split.validation) if predictor else None,
            mae(predictor, ratings, split.validation) if predictor else None,
            ranking(scores, ratings, split, k=k, relevant=relevant) if judged else None,
        )

    means, counts = item_mean(ratings, split.train), popularity(ratings, split.train)
    lines = (
        line(MODEL, trained.factors, trained.factors.scores),
        line(ITEM_MEAN, means, means.scores),
        line(POPULARITY, None, counts.scores),
    )
    return Evaluation(lines, len(split.validation), k, relevant, tuple(_notes(lines, relevant)))


def overfitting_settings(settings: Settings, epochs: int) -> Settings:
    """Return the same settings without what keeps a model from learning its ratings by heart, for `epochs` passes.

    Trained with them on the same split, the error on the training ratings falls on while that on the held-out ratings rises.
    """
    return replace(
        settings, dropout=0.0, regularization=0.0, falling_rate=False, max_epochs=epochs, patience=epochs
    )


def _split_again(ratings: Ratings, trained: Trained) -> Split:
    """Return the split of the training. Raises InvalidParameter where the ratings are not in all the same: others would be held out."""
    settings = trained.settings
    split = split_ratings(ratings, share=settings.validation_share, by=settings.split, seed=settings.seed)
    if fingerprint(ratings, split) != trained.fingerprint:
        raise InvalidParameter(
            "these are not the ratings of the training, or they are in another order",
            detail="Ratings that the training has seen would be held out.",
            hint="Give the same file, or a query with ORDER BY; after a training with a split of its own, give that split.",
        )
    return split


def _notes(lines: Sequence[Line], relevant: float) -> list[str]:
    model, means, counts = lines
    notes = [
        "Errors on ratings that also decided when the training stopped and which weights were kept are slightly too good. "
        "Cross-validation with a part of its own to stop by gives unbiased ones."
    ]
    assert model.rmse is not None
    assert means.rmse is not None
    if model.rmse >= means.rmse:
        notes.append(
            f"The model's RMSE of {model.rmse:.4f} is not below the {means.rmse:.4f} of each item's mean: what it learned does not "
            "help."
        )
    if not (model.ranking and counts.ranking):
        return [*notes, f"No held-out rating reaches {relevant:g}: lists are not judged."]
    return [*notes, _about_lists(model.ranking, counts.ranking)]


def _about_lists(model: Ranking, popular: Ranking) -> str:
    """Say how the lists compare, and why a good RMSE does not decide it."""
    figures = f"recall@{model.k} {model.recall:.3f} against {popular.recall:.3f}, nDCG@{model.k} {model.ndcg:.3f} against {popular.ndcg:.3f}"
    why = (
        "It is trained to predict how high a rating is, on pairs that users chose to rate; lists are judged by what users chose, which "
        "follows what is popular. Its lists hold what a user would rate high, known or not."
    )
    if model.ndcg < popular.ndcg:
        return f"In lists of all items the model loses to popularity by nDCG: {figures}. {why}"
    return f"In lists of all items the model is at least as good as popularity by nDCG: {figures}. {why}"
