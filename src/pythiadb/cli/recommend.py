"""`pythia recommend train | evaluate | deploy | fold-in | for-user`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from pythiadb import recommend as learning
from pythiadb.cli.display import console, error_console, print_json, print_table
from pythiadb.cli.learning import (
    KINDS,
    figures,
    lists_options,
    named,
    ratings_options,
    read_ratings,
    relevant_rating,
    settings_options,
    training_bar,
)
from pythiadb.cli.target import current_target, target_options
from pythiadb.errors import InvalidParameter
from pythiadb.recommend.recommending import knows
from pythiadb.recommend.split import shortfall
from pythiadb.recommend.training import Settings

if TYPE_CHECKING:
    from pythiadb.recommend import Evaluation, Ratings, Report, Trained


@click.group()
def recommend() -> None:
    """Learn from ratings what users like, and recommend in SQL."""


@recommend.command()
@click.option(
    "--folder", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Where to put what is learned, with a checkpoint after each pass.",
)  # fmt: skip
@ratings_options
@click.option("--resume", is_flag=True, help="Go on from the folder's checkpoint.")
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Write curves and a report into this folder."
)  # fmt: skip
@click.option(
    "--overfitting", is_flag=True,
    help="Show in the report, too, how the same training overfits without dropout and regularization.",
)  # fmt: skip
@lists_options
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def train(
    *,
    folder: Path,
    resume: bool,
    report: Path | None,
    overfitting: bool,
    k: int,
    relevant: float | None,
    as_json: bool,
    file: Path | None,
    query: str | None,
    columns: Sequence[str],
    duplicates: str,
    **settings: Any,
) -> None:
    """Learn a vector and a bias for each user and item of a file of ratings.

    FILE is .csv, .tsv (also .gz), .parquet or .arrow with columns like userId, movieId, rating, timestamp. Needs
    pip install 'pythiadb[train]'.
    """
    chosen = Settings(**settings)
    if overfitting and report is None:
        raise click.UsageError("--overfitting is for the report: give --report DIRECTORY, too.")
    if report and chosen.validation_share == 0:
        raise click.UsageError("A report needs ratings that are held out: --validation-share above 0.")
    ratings = read_ratings(file, query, columns, duplicates)
    if report:
        _check_report(ratings, chosen)
    with training_bar(chosen) as bar:
        trained = learning.train(
            ratings, chosen, folder=folder, resume=resume, on_step=bar.on_step, on_epoch=bar.on_epoch
        )
    written = None
    if report:
        written = _report(report, trained, ratings, overfitting=overfitting, k=k, relevant=relevant)
    if as_json:
        print_json(_facts(folder, trained, ratings, written))
        return
    best = trained.history[trained.best_epoch - 1]
    console.print(
        f"learned from {len(ratings):,} ratings of {len(ratings.user_ids):,} users for {len(ratings.item_ids):,} items",
        soft_wrap=True,
    )
    console.print(f"kept pass {best.number} of {len(trained.history)}: {figures(best)}", soft_wrap=True)
    for path in (folder, *filter(None, (written.page, written.curves, written.rankings) if written else ())):
        console.print(Text(f"wrote {path}"), soft_wrap=True)
    _notes(trained.notes)


@recommend.command()
@click.argument("folder", type=click.Path(path_type=Path))
@ratings_options
@lists_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def evaluate(
    *,
    folder: Path,
    file: Path | None,
    query: str | None,
    columns: Sequence[str],
    duplicates: str,
    k: int,
    relevant: float | None,
    as_json: bool,
) -> None:
    """Measure what was learned on the ratings that were held out, beside simple baselines.

    FILE holds the ratings of the training, all of them: what was held out is found again.
    """
    trained = learning.load(folder)
    ratings = read_ratings(file, query, columns, duplicates)
    found = _evaluated(trained, ratings, k, relevant)
    if as_json:
        print_json(asdict(found))
        return
    _show(found)
    _notes(found.notes)


@recommend.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name", default="cf_recommender")
@click.option("--table", help="A table with a row for each item; its column gets the items' vectors.")
@click.option("--key", help="The column with the items' ids; by default the primary key.")
@click.option("--column", default="cf_embedding", show_default=True, help="Added when it is missing.")
@click.option("--replace", is_flag=True, help="Put it in the place of the recommender of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def deploy(
    *,
    folder: Path,
    name: str,
    table: str | None,
    key: str | None,
    column: str,
    replace: bool,
    as_json: bool,
) -> None:
    """Put what was learned into a database: the model NAME, the tables NAME_users and NAME_items, vectors beside your items."""
    trained = learning.load(folder)
    with current_target().connect() as connection:
        made = learning.deploy(
            connection, trained, name, table=table, key=key, column=column, replace=replace
        )
    if as_json:
        print_json(asdict(made))
        return
    console.print(Text(f"deployed model {made.model}"), soft_wrap=True)
    console.print(Text(f"wrote {made.users:,} users to {made.users_table}"), soft_wrap=True)
    console.print(Text(f"wrote {made.items:,} items to {made.items_table}"), soft_wrap=True)
    if made.updated is not None:
        console.print(Text(f"wrote {made.updated:,} vectors to column {column} of {table}"), soft_wrap=True)


@recommend.command("fold-in")
@click.argument("name")
@click.argument("user")
@click.argument("ratings", metavar="ITEM=RATING…", nargs=-1, required=True)
@click.option(
    "--regularization", type=float, help="How strongly the user is drawn to the average; by default as in the training."
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def fold_in(
    *, name: str, user: str, ratings: Sequence[str], regularization: float | None, as_json: bool
) -> None:
    """Learn a new user of the recommender NAME from a few ratings, without training."""
    given = dict(_rating(pair) for pair in ratings)
    if len(given) < len(ratings):
        raise click.UsageError("An item is rated twice.")
    with current_target().connect() as connection:
        made = learning.fold_in(connection, name, user, given, regularization=regularization)
    if as_json:
        print_json({"user": user, **asdict(made)})
        return
    console.print(Text(f"folded in user {user} by {made.used} ratings"), soft_wrap=True)
    _notes([f"The recommender does not know item {item}." for item in made.ignored])


def _rating(pair: str) -> tuple[str, float]:
    item, equals, value = pair.rpartition("=")
    try:
        return item, float(value if equals and item else "")
    except ValueError:
        raise click.UsageError(f'Ratings are given as ITEM=RATING, like 296=5, not "{pair}".') from None


@recommend.command("for-user")
@click.argument("name")
@click.argument("user")
@click.option("-n", "--count", default=10, show_default=True, help="How many items.")
@click.option("--table", help="The table with a row for each item.")
@click.option("--key", help="Its column with the items' ids; by default the primary key.")
@click.option("--column", "columns", multiple=True, help="A column of it to show; may be repeated.")
@click.option("--where", metavar="SQL", help="A condition on it, as in: item.year >= 1990")
@click.option(
    "--seen", metavar="TABLE", help="A table of ratings; items that it has for the user are left out."
)
@click.option(
    "--seen-column", "seen_columns", multiple=True, metavar="KIND=NAME",
    help="Its column with an unusual name; KIND is user or item.",
)  # fmt: skip
@click.option("--exclude", multiple=True, metavar="ITEM", help="An item to leave out; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def for_user(*, name: str, user: str, seen_columns: Sequence[str], as_json: bool, **options: Any) -> None:
    """Recommend to a user of the recommender NAME, or to one who was folded in, what he has not seen."""
    names = dict(named(pair, "--seen-column", KINDS[:2]) for pair in seen_columns)
    with current_target().connect(autocommit=True) as connection:
        found = learning.for_user(connection, name, user, seen_columns=names or None, **options)
        known = knows(connection, name, user)
    if not known:
        _notes([f"The recommender does not know user {user}: the list is what is liked in general."])
    if as_json:
        print_json([{**row.values, "id": row.id, "rating": row.rating} for row in found])
        return
    rows = [(row.id, *row.values.values(), round(row.rating, 2)) for row in found]
    print_table(["id", *(found[0].values if found else options["columns"]), "rating"], rows)


def _check_report(ratings: Ratings, settings: Settings) -> None:
    """Raise InvalidParameter where a report would have nothing to be about: told before the training, which may take long."""
    split = learning.split_ratings(
        ratings, share=settings.validation_share, by=settings.split, seed=settings.seed
    )
    if not len(split.validation):
        raise InvalidParameter(
            "there can be no report: it is about ratings that are held out, and none would be",
            detail=f"{shortfall(split, settings.validation_share)}.".capitalize(),
            hint="Train without --report, or with ratings of users and items that have several.",
        )


def _report(
    folder: Path,
    trained: Trained,
    ratings: Ratings,
    *,
    overfitting: bool,
    k: int,
    relevant: float | None,
) -> Report:
    """Write the report, after a training that overfits where that is wanted."""
    other = None
    if overfitting:
        settings = learning.overfitting_settings(trained.settings, len(trained.history))
        with training_bar(settings, "overfitting, ") as bar:
            other = learning.train(ratings, settings, on_step=bar.on_step, on_epoch=bar.on_epoch)
    found = _evaluated(trained, ratings, k, relevant)
    return learning.write_report(folder, trained, found, ratings, overfitting=other)


def _evaluated(trained: Trained, ratings: Ratings, k: int, relevant: float | None) -> Evaluation:
    if relevant is None:
        relevant = relevant_rating(trained, ratings)
    return learning.evaluate(trained, ratings, k=k, relevant=relevant)


def _facts(folder: Path, trained: Trained, ratings: Ratings, report: Report | None) -> dict[str, Any]:
    """Return what `train --json` prints."""
    return {
        "folder": folder,
        "ratings": len(ratings),
        "users": len(ratings.user_ids),
        "items": len(ratings.item_ids),
        "settings": asdict(trained.settings),
        "best_epoch": trained.best_epoch,
        "history": [asdict(epoch) for epoch in trained.history],
        "notes": trained.notes,
        "report": asdict(report) if report else None,
    }


def _show(evaluation: Evaluation) -> None:
    columns, rows = evaluation.table()
    shown = [[round(value, 4) if isinstance(value, float) else value for value in row] for row in rows]
    print_table(columns, shown, title=f"{evaluation.held_out:,} ratings held out")


def _notes(notes: Sequence[str]) -> None:
    for note in notes:
        error_console.print(Text.assemble(("NOTE:  ", "bold"), note), soft_wrap=True)
