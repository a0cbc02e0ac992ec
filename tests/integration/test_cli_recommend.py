"""The command line of the recommender: from a file of ratings to recommendations, and what is said where something is wrong."""

from __future__ import annotations

import csv
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from command_line import ok, pythia

import pythiadb
from pythiadb import recommend
from pythiadb.recommend import Ratings, Settings, checkpoints
from tests.unit.recommend.low_rank import low_rank

SMALL = ("--dimensions", "4", "--max-epochs", "3", "--threads", "1", "--seed", "5")
# Whoever was started in the background of a script ignores Ctrl-C, and so do its children, if they do not begin like this.
HEEDING = (
    sys.executable,
    "-c",
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('pythiadb.cli', run_name='__main__', alter_sys=True)",
)
SETTINGS = Settings(dimensions=4, max_epochs=3, threads=1, seed=5)


@pytest.fixture(scope="module")
def rated() -> Ratings:
    return low_rank(users=60, items=40, count=1200)


@pytest.fixture(scope="module")
def file(rated: Ratings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ratings as MovieLens writes them."""
    path = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    users, items = rated.user_ids.to_pylist(), rated.item_ids.to_pylist()
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("userId", "movieId", "rating", "timestamp"))
        for user, item, value, time in zip(rated.users, rated.items, rated.values, rated.times, strict=True):
            writer.writerow((users[user], items[item], value, time))
    return path


@pytest.fixture(scope="module")
def folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was learned from them."""
    made = tmp_path_factory.mktemp("trained")
    ok("recommend", "train", file, "--folder", made, *SMALL)
    return made


@pytest.fixture
def deployed(
    db: pythiadb.Connection, data: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pythiadb.Connection]:
    """A connection to a schema with the recommender `taste` and a table of its items, which commands see first."""
    row = db.execute("SHOW search_path").fetchone()
    assert row is not None
    monkeypatch.setenv("PGOPTIONS", f"-c search_path={row[0].replace(' ', '')}")
    db.execute("CREATE TABLE films (id text PRIMARY KEY, year int)")
    db.execute(
        "INSERT INTO films SELECT format('film %s', lpad(n::text, 4, '0')), 1960 + n FROM generate_series(0, 39) n"
    )
    ok("recommend", "deploy", folder, "taste", "--table", "films", *data)
    yield db
    db.execute("CALL dbms_vector.drop_onnx_model('taste', true)")


def test_training_writes_a_folder_and_a_report(file: Path, tmp_path: Path) -> None:
    folder, report = tmp_path / "trained", tmp_path / "report"
    said = ok("recommend", "train", file, "--folder", folder, "--report", report, "--overfitting", *SMALL)
    assert "learned from 1,200 ratings of 60 users for 40 items\n" in said
    assert "of 3: RMSE " in said
    assert f"wrote {folder}\nwrote {report / 'report.html'}\nwrote {report / 'curves.png'}\n" in said
    assert (report / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(recommend.load(folder).history) == 3


def test_training_is_that_of_python(file: Path, rated: Ratings, tmp_path: Path) -> None:
    """The same seed gives the same history and weights, and --resume finds nothing left to do."""
    expected = recommend.train(recommend.read_ratings(file), SETTINGS)
    options = ("recommend", "train", file, "--folder", tmp_path, "--json", *SMALL)
    facts = json.loads(ok(*options))
    again = json.loads(ok(*options, "--resume"))
    assert (facts["ratings"], facts["users"], facts["items"]) == (len(rated), 60, 40)
    assert facts["settings"]["dimensions"] == 4
    errors = [epoch.validation_rmse for epoch in expected.history]
    assert [epoch["validation_rmse"] for epoch in facts["history"]] == errors
    assert again["history"] == facts["history"]
    found = recommend.load(tmp_path).factors
    np.testing.assert_array_equal(found.item_vectors, expected.factors.item_vectors)


# With steps of one rating a pass is so long that the bar shows parts of it.
ENDLESS = ("--max-epochs=9999", "--patience=9999", "--no-falling-rate", "--batch-rows=1", "--threads=1")


def test_a_training_that_ctrl_c_ended_goes_on(file: Path, tmp_path: Path) -> None:
    """What it comes to is what it would have come to. On a terminal a bar shows the loss meanwhile."""
    folder = tmp_path / "taste"
    command = [*HEEDING, "recommend", "train", str(file), "--folder", str(folder), *ENDLESS]
    terminal, its_end = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=its_end, env=environment)
    os.close(its_end)
    shown = _shown(terminal, until=r"pass \d+ of at most 9999.*loss \d\.\d{4}, before: RMSE \d")
    training.send_signal(signal.SIGINT)
    shown += _shown(terminal)
    os.close(terminal)
    assert (training.wait(30), "Traceback" in shown) == (1, False)
    assert [path.name for path in folder.iterdir()] == [checkpoints.FILE]
    found = checkpoints.read(folder)
    assert found is not None
    passes = len(found[0]["history"]) + 1
    options = [option.replace("9999", str(passes)) for option in ENDLESS]
    ok("recommend", "train", file, "--folder", folder, "--resume", *options)
    ok("recommend", "train", file, "--folder", tmp_path / "straight", *options)
    resumed, straight = recommend.load(folder), recommend.load(tmp_path / "straight")
    assert len(resumed.history) == passes
    np.testing.assert_array_equal(resumed.factors.item_vectors, straight.factors.item_vectors)


def _shown(terminal: int, until: str | None = None) -> str:
    """Read what a process shows on a terminal, until it is of a form or all of it."""
    shown = ""
    while until is None or not re.search(until, shown):
        assert select.select([terminal], [], [], 60)[0], shown
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the process has ended
            assert until is None, shown
            break
    return shown


def test_ratings_of_a_query_are_those_of_the_file(
    deployed: pythiadb.Connection, data: tuple[str, str], file: Path, folder: Path, tmp_path: Path
) -> None:
    deployed.execute("CREATE TABLE stars (who int, what text, stars real, time bigint)")
    with deployed.cursor() as cursor, cursor.copy("COPY stars FROM STDIN (FORMAT csv, HEADER)") as copy:
        copy.write(file.read_bytes())
    columns = ("--column", "user=who", "--column", "item=what", "--column", "rating=stars")
    query = "SELECT who, what, stars, time FROM stars"
    ok("recommend", "train", "--query", query, *columns, *data, "--folder", tmp_path, *SMALL)
    # Rows of a query come in another order, so the split differs; ids and their positions do not.
    assert recommend.load(tmp_path).item_ids.equals(recommend.load(folder).item_ids)
    assert recommend.load(tmp_path).user_ids.equals(recommend.load(folder).user_ids)


def test_evaluation_beside_the_baselines(file: Path, folder: Path) -> None:
    shown = pythia("recommend", "evaluate", folder, file, "-k", "5")
    assert shown.exit_code == 0
    for text in ("trained model", "item mean", "popularity", "recall@5", "nDCG@5"):
        assert text in shown.stdout
    assert "NOTE:  " in shown.stderr
    found = json.loads(ok("recommend", "evaluate", folder, file, "--json"))
    expected = recommend.evaluate(recommend.load(folder), recommend.read_ratings(file))
    assert [line["rmse"] for line in found["lines"]] == [line.rmse for line in expected.lines]
    assert found["lines"][0]["ranking"]["k"] == 10


def test_deployed_recommender_answers_as_it_was_trained(
    deployed: pythiadb.Connection, data: tuple[str, str], folder: Path
) -> None:
    trained = recommend.load(folder)
    scores = trained.factors.scores(np.array([6]))[0]
    wanted = np.argsort(-scores)[:3]
    rows = json.loads(
        ok("recommend", "for-user", "taste", trained.user_ids[6], "-n", "3", "--table", "films", "--column", "year",
           "--json", *data)
    )  # fmt: skip
    assert [row["id"] for row in rows] == [trained.item_ids[int(place)].as_py() for place in wanted]
    np.testing.assert_allclose([row["rating"] for row in rows], scores[wanted], rtol=1e-5)
    assert [row["year"] for row in rows] == [1960 + int(place) for place in wanted]
    assert deployed.execute("SELECT count(cf_embedding) FROM films").fetchone() == (40,)


def test_recommendations_with_conditions(deployed: pythiadb.Connection, data: tuple[str, str]) -> None:
    deployed.execute("CREATE TABLE seen (who int, item text)")
    deployed.execute("INSERT INTO seen SELECT 7, id FROM films WHERE year % 2 = 0")
    command = (
        "recommend",
        "for-user",
        "taste",
        "7",
        "--table",
        "films",
        "--where",
        "item.year < 1970",
        *data,
    )
    options = ("--seen", "seen", "--seen-column", "user=who", "--exclude", "film 0001")
    rows = json.loads(ok(*command, *options, "--json"))
    assert sorted(row["id"] for row in rows) == ["film 0003", "film 0005", "film 0007", "film 0009"]
    shown = ok(*command, "--column", "year", "--column", "YEAR", "-n", "1")  # one column, by two of its names
    assert "┃ year ┃ rating ┃" in shown
    deployed.execute("ALTER TABLE films ADD rating text DEFAULT 'PG-13'")
    rows = json.loads(ok(*command, "--column", "rating", "-n", "1", "--json"))
    assert 0 < rows[0]["rating"] <= 5


def test_somebody_new(deployed: pythiadb.Connection, data: tuple[str, str]) -> None:
    said = pythia("recommend", "fold-in", "taste", "9000", "film 0001=5", "film 0002=1.5", "film 9=3", *data)
    assert said.exit_code == 0
    assert said.stdout == "folded in user 9000 by 2 ratings\n"
    assert said.stderr == "NOTE:  The recommender does not know item film 9.\n"
    assert deployed.execute("SELECT idx FROM taste_users WHERE id = 9000").fetchone() == (None,)
    again = json.loads(ok("recommend", "fold-in", "taste", "9000", "film 0001=1", "--json", *data))
    assert (again["user"], again["used"], again["ignored"]) == ("9000", 1, [])
    assert len(json.loads(ok("recommend", "for-user", "taste", "9000", "--json", *data))) == 10
    unknown = pythia("recommend", "for-user", "taste", "123456789", "-n", "3", *data)
    assert unknown.exit_code == 0
    note = "The recommender does not know user 123456789: the list is what is liked in general."
    assert note in unknown.stderr
    twice = pythia("recommend", "fold-in", "taste", "9001", "1=5", "1=2", *data)
    assert (twice.exit_code, "An item is rated twice." in twice.stderr) == (2, True)


def test_deploying_again_needs_replace(
    deployed: pythiadb.Connection, data: tuple[str, str], folder: Path
) -> None:
    refused = pythia("recommend", "deploy", folder, "taste", *data)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    made = json.loads(
        ok("recommend", "deploy", folder, "taste", "--table", "films", "--replace", "--json", *data)
    )
    assert (made["users"], made["items"], made["updated"]) == (60, 40, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--folder", "x"], "Give either FILE or --query SQL."),
        (["train", "r.csv", "--query", "SELECT 1", "--folder", "x"], "Give either FILE or --query SQL."),
        (["train", "--query", "SELECT 1", "--folder", "x"], "Give either --data DIRECTORY or --dsn URL."),
        (["train", "r.csv", "--folder", "x", "--column", "who=user"], '--column takes NAME=VALUE with user or item'),
        (["train", "r.csv", "--folder", "x", "--overfitting"], "give --report DIRECTORY, too"),
        (["train", "r.csv", "--folder", "x", "--report", "y", "--validation-share", "0"], "A report needs ratings that are held out"),
        (["train", "r.csv", "--folder", "x", "--split", "half"], "'half' is not one of 'random', 'time'"),
        (["fold-in", "taste", "1", "50"], 'Ratings are given as ITEM=RATING, like 296=5, not "50".'),
        (["fold-in", "taste", "1", "50=good"], 'not "50=good"'),
    ],
)  # fmt: skip
def test_wrong_options(arguments: list[str], message: str) -> None:
    result = pythia("recommend", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("userId,movieId\n1,2\n", "has no column rating"),
        ("userId,movieId,rating\n1,2,3\n1,3,good\n", 'column rating has "good" in line 3 of "r.csv"'),
    ],
)
def test_ratings_that_are_wrong(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.csv").write_text(content)
    result = pythia("recommend", "train", tmp_path / "r.csv", "--folder", tmp_path / "made")
    assert result.exit_code == 1
    assert result.stderr.startswith("ERROR:  ")
    assert message in result.stderr
    assert not (tmp_path / "made").exists()


def test_settings_that_are_wrong_are_told_before_reading(tmp_path: Path) -> None:
    result = pythia("recommend", "train", tmp_path / "none.csv", "--folder", tmp_path, "--dropout", "1")
    assert result.exit_code == 1
    assert result.stderr == "ERROR:  dropout must be from 0 to below 1, not 1.0\n"


WITHOUT = """
import sys
sys.modules[{library!r}] = None
from pythiadb.cli import main
main({arguments!r})
"""


@pytest.mark.parametrize("library", ["torch", "pyarrow"])
def test_missing_extra_is_named(file: Path, tmp_path: Path, library: str) -> None:
    arguments = ["recommend", "train", str(file), "--folder", str(tmp_path), *SMALL]
    done = _python(WITHOUT.format(library=library, arguments=arguments))
    assert done.returncode == 1
    assert f"needs the package {library}\n" in done.stderr
    assert done.stderr.endswith("HINT:  Run: pip install 'pythiadb[train]'\n")


def test_large_libraries_come_when_they_are_needed() -> None:
    """The command line, and what works in the database, load neither PyTorch nor pyarrow nor matplotlib."""
    names = "deploy, fold_in, for_user, onnx_model, Settings"
    code = f"import sys, pythiadb.cli\nfrom pythiadb.recommend import {names}\n"
    code += "print({'torch', 'pyarrow', 'matplotlib'} & set(sys.modules))"
    assert _python(code).stdout == "set()\n"


def test_public_names_are_not_hidden_by_modules() -> None:
    for name in recommend.__all__:
        assert not isinstance(getattr(recommend, name), ModuleType), name


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
