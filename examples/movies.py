"""Learn a recommender from MovieLens 100k, deploy it, ask it in SQL: `make demo-movies`, or `python -m examples.movies --help`.

Read `main` first: each line of it is one step. The statements are in `movie_queries.py`. Everything is put into one folder, the
database as well; a second run learns again and puts what it has learned in the place of the first one's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pythiadb
from examples.demo import load_model, open_database
from examples.movie_queries import (
    DESCRIBE,
    LIKED,
    LOAD,
    NEWCOMER,
    OFTEN_RATED,
    OPINIONS,
    PREDICTED,
    RATINGS,
    TABLES,
    nearest,
)
from examples.show import console, curve, embed, show_pairs, show_sql, show_table, shown, step
from pythiadb import recommend
from pythiadb.cli.display import print_error
from pythiadb.cli.learning import training_bar
from pythiadb.recommend import Evaluation, Ratings, Settings, Trained
from tools.fetch_data import FetchError, fetch_movielens

ROOT = Path(__file__).resolve().parent.parent
NAME = "cf_recommender"
USER = 42
OVERFITTING_PASSES = 12

NEXT = """
The database stays in {data}. Go on from here:

  {pythia} recommend for-user {name} {user} --table movies --column title --seen ratings --data {data}
  {pythia} sql --data {data}
      SELECT title FROM movies
      ORDER BY cf_embedding <=> (SELECT cf_embedding FROM movies WHERE title = 'Alien (1979)')
      FETCH FIRST 6 ROWS ONLY;

The ratings are GroupLens's, for research: see https://grouplens.org/datasets/movielens/100k/
"""


def main() -> None:
    """Run the demonstration."""
    options = parse_options()
    files = fetch()
    with open_database(options.folder / "database") as db:
        load_model(db, options.model)
        fill_tables(db, files)
        ratings = read(db)
        # The steps are so short that a second thread would wait more than it works.
        trained = learn(ratings, Settings(max_epochs=options.passes, threads=1), "Learn from them")
        overfitted = learn_by_heart(ratings, trained)
        judge(ratings, trained, overfitted, options.folder / "report")
        deploy(db, trained, options.folder / "trained")
        describe(db, options.folder / "database")
        compare(db)
        predict(db)
        recommend_to_a_user(db)
        recommend_to_a_newcomer(db)
    pythia = shown(Path(sys.executable).with_name("pythia"))
    text = NEXT.format(data=shown(options.folder / "database"), pythia=pythia, name=NAME, user=USER)
    console.print(text, markup=False, soft_wrap=True)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Learn from ratings which movies are alike, and recommend.")
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "demo-movies",
        help="for the database, the report, what is learned",
    )
    parser.add_argument(
        "--model", type=Path, default=ROOT / ".cache/models/all-MiniLM-L6-v2", help="a Hugging Face folder"
    )
    parser.add_argument("--passes", type=int, default=Settings().max_epochs, help="over the ratings at most")
    options = parser.parse_args()
    options.folder = options.folder.absolute()
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def fetch() -> Path:
    """Return the folder with ratings.csv and movies.csv, fetched when need be."""
    with step("Fetch MovieLens 100k") as facts:
        folder = fetch_movielens(ROOT / ".cache" / "data")
        facts.append(shown(folder))
    return folder


def fill_tables(db: pythiadb.Connection, files: Path) -> None:
    """Make the tables and copy the files into them, unless they are there."""
    with step("Fill the tables movies and ratings") as facts:
        db.execute(TABLES)
        filled = []
        for table, statement in LOAD.items():
            with db.cursor() as cursor:
                (count,) = _one(db, f"SELECT count(*) FROM {table}")
                if not count:
                    with cursor.copy(statement) as copy:
                        copy.write((files / f"{table}.csv").read_bytes())
                    (count,) = _one(db, f"SELECT count(*) FROM {table}")
            filled.append(f"{count:,} {table}")
        facts.append(", ".join(filled))


def read(db: pythiadb.Connection) -> Ratings:
    """Read the ratings by a query. A file, a data frame or an Arrow table would do as well."""
    with step("Read the ratings by a query") as facts:
        ratings = recommend.read_ratings(RATINGS, query_connection=db)
        facts.append(f"{len(ratings.user_ids):,} users, {len(ratings.item_ids):,} movies")
    return ratings


def learn(ratings: Ratings, settings: Settings, title: str) -> Trained:
    """Learn vectors of 64 numbers and biases; a tenth of the ratings is held out and says when to stop."""
    with step(title, spinner=False) as facts, training_bar(settings) as bar:
        trained = recommend.train(ratings, settings, on_step=bar.on_step, on_epoch=bar.on_epoch)
        best = trained.history[trained.best_epoch - 1]
        facts.append(
            f"{len(trained.history)} passes, best RMSE {best.validation_rmse:.4f} on ratings held out"
        )
    return trained


def learn_by_heart(ratings: Ratings, trained: Trained) -> Trained:
    """The same without what keeps it from learning its ratings by heart."""
    settings = recommend.overfitting_settings(trained.settings, OVERFITTING_PASSES)
    return learn(ratings, settings, "Again without dropout, regularization and early stopping")


def judge(ratings: Ratings, trained: Trained, overfitted: Trained, folder: Path) -> None:
    """Show the curves of both and how good the first one is; write the report."""
    runs = {"regularised": trained, "overfitting": overfitted}
    top = max(epoch.validation_loss for run in runs.values() for epoch in run.history)
    rows: list[tuple[object, ...]] = []
    for name, run in runs.items():
        curves = [
            curve([getattr(epoch, f"{which}_loss") for epoch in run.history], top)
            for which in ("train", "validation")
        ]
        errors = [epoch.validation_rmse for epoch in run.history]
        rows.append((name, *curves, min(errors), errors[-1]))
    show_table(["", "loss in training", "loss on ratings held out", "RMSE: best", "last"], rows)
    with step("Measure it beside simple baselines, write curves and a report") as facts:
        evaluation: Evaluation = recommend.evaluate(trained, ratings)
        report = recommend.write_report(
            folder, trained, evaluation, ratings, overfitting=overfitted, title="MovieLens 100k"
        )
        written = (report.page, report.curves, report.rankings)
        facts.append(", ".join(shown(path) for path in written if path))
    columns, lines = evaluation.table()
    show_table(columns, [tuple("" if value is None else value for value in line) for line in lines])


def deploy(db: pythiadb.Connection, trained: Trained, folder: Path) -> None:
    """Put it into the database: the model, the maps from ids to indexes, the vectors beside the movies."""
    with step(f"Deploy it as the model {NAME}") as facts:
        recommend.save(trained, folder)
        made = recommend.deploy(db, trained, NAME, table="movies", replace=True)
        facts.append(f"tables {made.users_table} and {made.items_table}, {made.updated:,} vectors in movies")


def describe(db: pythiadb.Connection, directory: Path) -> None:
    """Embed what the movies' titles and genres say, in one statement."""
    embed("Embed titles and genres, too", db, directory, DESCRIBE)


def compare(db: pythiadb.Connection) -> None:
    """Put beside each other what is liked by the same people and what reads alike."""
    console.rule("[bold]Five movies like each of three", align="left")
    show_sql(nearest("cf_embedding"))
    _show_lists(db, "")
    console.rule("[bold]The same among movies that fifty people have rated", align="left")
    console.print("Of a movie that hardly anybody has rated, little can be learned: its vector is near many.")
    console.print(OFTEN_RATED.strip("\n"), markup=False)
    _show_lists(db, OFTEN_RATED)


def predict(db: pythiadb.Connection) -> None:
    """Let the model predict ratings that were given."""
    console.rule(f"[bold]What user {USER} gave, and what the model predicts", align="left")
    show_sql(PREDICTED.replace(":user", str(USER)))
    _show(db, PREDICTED, {"user": USER})


def recommend_to_a_user(db: pythiadb.Connection) -> None:
    """Recommend what a user has not seen, with conditions on genre and year."""
    console.rule(f"[bold]Comedies from 1990 to 1995 that user {USER} has not rated", align="left")
    _show(db, LIKED, {"user": USER})
    found = recommend.for_user(
        db, NAME, USER, count=5, table="movies", columns=("title", "genres"), seen="ratings",
        where="item.genres LIKE '%Comedy%' AND item.year BETWEEN :first AND :last", params={"first": 1990, "last": 1995},
    )  # fmt: skip
    _show_recommended(found)


def recommend_to_a_newcomer(db: pythiadb.Connection) -> None:
    """Fold somebody in who was not there in the training, and recommend to him."""
    console.rule("[bold]Somebody new, after five ratings and no training", align="left")
    movies = dict(db.execute(OPINIONS, {"titles": list(NEWCOMER)}).fetchall())
    given = {movies[title]: rating for title, rating in NEWCOMER.items()}
    with step("Fold in his ratings") as facts:
        recommend.fold_in(db, NAME, 1_000_000, given)
        facts.append(", ".join(f"{title} {rating:g}" for title, rating in NEWCOMER.items()))
    found = recommend.for_user(
        db, NAME, 1_000_000, count=5, table="movies", columns=("title", "genres"), exclude=given
    )
    _show_recommended(found)


def _show_lists(db: pythiadb.Connection, condition: str) -> None:
    columns = "cf_embedding", "content_embedding"
    lists = [db.execute(nearest(column, condition)).fetchall() for column in columns]
    show_pairs(("liked alike: cf_embedding", "reads alike: content_embedding"), *lists)


def _show(db: pythiadb.Connection, statement: str, binds: dict[str, Any]) -> None:
    cursor = db.execute(statement, binds)
    show_table([column.name for column in cursor.description or ()], cursor.fetchall())


def _show_recommended(found: list[recommend.Recommendation]) -> None:
    columns = ["title", "genres", "rating expected"]
    show_table(columns, [(row.values["title"], row.values["genres"], f"{row.rating:.2f}") for row in found])


def _one(db: pythiadb.Connection, statement: str) -> tuple[Any, ...]:
    row = db.execute(statement).fetchone()
    assert row is not None
    return tuple(row)


if __name__ == "__main__":
    try:
        main()
    except pythiadb.Error as error:
        print_error(error)
        sys.exit(1)
    except FetchError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
