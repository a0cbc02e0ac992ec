"""A recommender learned from rows of (who, what, how much): from a file of ratings to a model, vectors and recommendations in SQL.

    from pythiadb import recommend

    trained = recommend.train(recommend.read_ratings("ratings.csv"), folder="taste")
    with pythiadb.connect("./shop") as db:
        recommend.deploy(db, trained, "cf_recommender", table="movies", key="movieid")
        recommend.for_user(db, "cf_recommender", 42)

Learning needs PyTorch and pyarrow, reports need matplotlib: `pip install 'pythiadb[train]'`. What works in the database (deploy,
fold_in, for_user) needs none of them. Names are imported when they are first used (PEP 562), and so are those libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pythiadb.recommend.deploying import Deployed as Deployed
    from pythiadb.recommend.deploying import deploy as deploy
    from pythiadb.recommend.evaluation import Evaluation as Evaluation
    from pythiadb.recommend.evaluation import evaluate as evaluate
    from pythiadb.recommend.evaluation import overfitting_settings as overfitting_settings
    from pythiadb.recommend.export import onnx_model as onnx_model
    from pythiadb.recommend.factors import Factors as Factors
    from pythiadb.recommend.folding import FoldedIn as FoldedIn
    from pythiadb.recommend.folding import fold_in as fold_in
    from pythiadb.recommend.ratings import Ratings as Ratings
    from pythiadb.recommend.ratings import read_ratings as read_ratings
    from pythiadb.recommend.recommending import Recommendation as Recommendation
    from pythiadb.recommend.recommending import for_user as for_user
    from pythiadb.recommend.report import Report as Report
    from pythiadb.recommend.report import write_report as write_report
    from pythiadb.recommend.split import Split as Split
    from pythiadb.recommend.split import folds as folds
    from pythiadb.recommend.split import split_ratings as split_ratings
    from pythiadb.recommend.storing import load as load
    from pythiadb.recommend.storing import save as save
    from pythiadb.recommend.training import Epoch as Epoch
    from pythiadb.recommend.training import Settings as Settings
    from pythiadb.recommend.training import Step as Step
    from pythiadb.recommend.training import Trained as Trained
    from pythiadb.recommend.training import train as train

_HOMES = {
    "deploying": ("Deployed", "deploy"),
    "evaluation": ("Evaluation", "evaluate", "overfitting_settings"),
    "export": ("onnx_model",),
    "factors": ("Factors",),
    "folding": ("FoldedIn", "fold_in"),
    "ratings": ("Ratings", "read_ratings"),
    "recommending": ("Recommendation", "for_user"),
    "report": ("Report", "write_report"),
    "split": ("Split", "folds", "split_ratings"),
    "storing": ("load", "save"),
    "training": ("Epoch", "Settings", "Step", "Trained", "train"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME]  # noqa: PLE0604  (names from the table above)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
