"""Models from directories of the server, over the network, from S3: what comes, who may ask, and what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from fetching_calls import ANIMALS, LIMIT, SHA256, fetch, left_behind, readable, score
from onnx import TensorProto, numpy_helper

import pythiadb
from tests.integration import weighty_models
from tests.integration.web_servers import Site
from tests.unit.models.small_models import string_graph

# Directories and external data --------------------------------------------------------------------------------------------


def load_file(db: pythiadb.Connection, name: str, **arguments: str) -> None:
    given = {"directory": "FETCH_DIR", "file_name": name, "model_name": "fetched"} | arguments
    text = ", ".join(f"{key} => %s" for key in given)
    db.execute(f"CALL dbms_vector.load_onnx_model({text})".encode(), list(given.values()))


def test_external_data_come_with_the_graph(db: pythiadb.Connection, fetch_dir: Path) -> None:
    weighty_models.save(fetch_dir)
    readable(fetch_dir)
    load_file(db, "animals.onnx")
    row = db.execute(
        "SELECT external_data, (SELECT array_agg(f.name ORDER BY f.name) FROM pythia.model_file f WHERE f.model_id = m.id) "
        "FROM pythia.model m WHERE relation = 'fetched'::regclass"
    ).fetchone()
    assert row == (True, ["animals.data", "model.onnx"])
    for kind in weighty_models.KINDS:
        np.testing.assert_allclose(score(db, text=kind), weighty_models.embedding(kind), rtol=1e-4, atol=1e-3)
    (fetch_dir / "animals.data").unlink()  # the database has its own copy
    np.testing.assert_allclose(score(db), weighty_models.embedding("dog"), rtol=1e-4, atol=1e-3)


def test_oracles_side_file_has_to_be_there_and_json_when_it_is_named(
    db: pythiadb.Connection, fetch_dir: Path
) -> None:
    weighty_models.save(fetch_dir)
    (fetch_dir / "side.json").write_text('{"external_data": ["animals.data"]}')
    (fetch_dir / "broken.json").write_text("{")
    readable(fetch_dir)
    before = left_behind(db)
    with pytest.raises(psycopg.errors.UndefinedFile, match=r"missing\.json"):
        load_file(db, "animals.onnx", external_data_file_name="missing.json")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="json"):
        load_file(db, "animals.onnx", external_data_file_name="broken.json")
    assert left_behind(db) == before
    load_file(db, "animals.onnx", external_data_file_name="side.json")
    np.testing.assert_allclose(score(db), weighty_models.embedding("dog"), rtol=1e-4, atol=1e-3)


def with_external(location: str, **entries: str) -> bytes:
    """A graph one of whose weights lies in another file."""
    model = string_graph()
    weight = numpy_helper.from_array(np.zeros(16, np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location} | entries).items():
        weight.external_data.add(key=key, value=value)
    model.graph.initializer.append(weight)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret", "lies outside the model folder"),
        ("/etc/passwd", "lies outside the model folder"),
        ("link", "lies outside the model folder"),
        ("", "lies outside the model folder"),
        ("sub/weights", "must lie beside the model"),
        ("model.onnx", "must lie beside the model"),
        ("my weights", "has a name that the database cannot store"),
        ("missing", "is missing"),
        ("sub", "is not a regular file|must lie beside"),
    ],
)
def test_external_data_that_are_elsewhere(
    db: pythiadb.Connection, fetch_dir: Path, location: str, message: str
) -> None:
    """Before a byte is read: also through a symbolic link."""
    (fetch_dir / "model.bin").write_bytes(with_external(location))
    (fetch_dir / "link").symlink_to("/etc/passwd")
    (fetch_dir / "sub").mkdir()
    (fetch_dir / "sub" / "weights").write_bytes(bytes(64))
    before = left_behind(db)
    with pytest.raises(psycopg.Error, match=message) as caught:
        load_file(db, "model.bin")
    assert str(caught.value.sqlstate) in ("22X01", "22023")
    assert left_behind(db) == before


def test_file_larger_than_the_engine_takes(db: pythiadb.Connection, fetch_dir: Path) -> None:
    """A sparse file, refused by its size before it is read."""
    with (fetch_dir / "huge.onnx").open("wb") as stream:
        stream.truncate(LIMIT + 1)
    readable(fetch_dir)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=f"has more than {LIMIT} bytes") as caught:
        load_file(db, "huge.onnx")
    assert "max_model_bytes" in str(caught.value.diag.message_hint)


# File URIs ----------------------------------------------------------------------------------------------------------------


def test_file_uri(db: pythiadb.Connection, fetch_dir: Path) -> None:
    (fetch_dir / "my animals.onnx").write_bytes(ANIMALS)
    readable(fetch_dir)
    fetch(db, f"file://{fetch_dir}/my%20animals.onnx")
    assert score(db) == [0, 1, 0]
    fetch(db, f"file://{fetch_dir}/my%20animals.onnx#sha256={SHA256}", name="checked")
    with pytest.raises(psycopg.errors.UndefinedFile, match="No such file"):
        fetch(db, f"file://{fetch_dir}/nosuch.onnx", name="other")
    for uri in ("file://elsewhere/x.onnx", "file:x.onnx", "file:///", f"file://{fetch_dir}"):
        with pytest.raises(psycopg.Error) as caught:
            fetch(db, uri, name="other")
        assert caught.value.sqlstate in ("22023", "58P01"), uri


def test_file_that_the_engine_may_not_read(db: pythiadb.Connection, fetch_dir: Path) -> None:
    (fetch_dir / "closed.onnx").write_bytes(ANIMALS)
    (fetch_dir / "closed.onnx").chmod(0)
    if os.geteuid() != 0:
        pytest.skip("only files of another account are closed to the engine")
    with pytest.raises(psycopg.errors.IoError, match="Permission denied") as caught:
        fetch(db, f"file://{fetch_dir}/closed.onnx")
    assert "system user" in str(caught.value.diag.message_hint)


# The network --------------------------------------------------------------------------------------------------------------


def test_web_address(db: pythiadb.Connection, site: Site) -> None:
    fetch(db, f"{site.url}/animals.onnx?signature=abc#sha256={SHA256.upper()}")
    assert score(db) == [0, 1, 0]
    assert site.requests[0][0] == "/animals.onnx?signature=abc"
    assert "authorization" not in site.requests[0][1]


def test_file_of_several_pieces(db: pythiadb.Connection, site: Site) -> None:
    """2.5 MB come back as they were."""
    model = string_graph()
    filler = np.random.default_rng(1).integers(0, 255, 2_621_440, np.uint8)
    model.graph.initializer.append(numpy_helper.from_array(filler, "filler"))
    site.files["/large.onnx"] = model.SerializeToString()
    fetch(db, f"{site.url}/large.onnx")
    row = db.execute(
        "SELECT string_agg(c.data, '' ORDER BY c.no) FROM pythia.model m JOIN pythia.model_file f ON f.model_id = m.id "
        "JOIN pythia.model_chunk c USING (sha256) WHERE m.relation = 'fetched'::regclass"
    ).fetchone()
    assert row == (site.files["/large.onnx"],)


@pytest.mark.parametrize("failures", [[503], [500, 502], [0], [0, 503, 0]])
def test_server_that_fails_for_a_moment(db: pythiadb.Connection, site: Site, failures: list[int]) -> None:
    """0 is a connection that breaks off in the middle of the file."""
    site.failures["/animals.onnx"] = list(failures)
    fetch(db, f"{site.url}/animals.onnx#sha256={SHA256}")
    assert score(db) == [0, 1, 0]
    assert len(site.requests) == len(failures) + 1


@pytest.mark.parametrize(
    ("path", "status", "error", "message"),
    [
        ("/nosuch.onnx", 404, psycopg.errors.UndefinedFile, 'there is no file at "{url}/nosuch.onnx"'),
        ("/closed.onnx", 401, psycopg.errors.IoError, "The server answered 401"),
        ("/animals.onnx", 0, psycopg.errors.IoError, "The connection broke off"),
        ("/animals.onnx", 503, psycopg.errors.IoError, "The server answered 503"),
    ],
)
def test_server_that_fails(
    db: pythiadb.Connection, site: Site, path: str, status: int, error: Any, message: str
) -> None:
    site.tokens["/closed.onnx"] = "Bearer right"
    if path == "/animals.onnx":
        site.failures[path] = [status] * 40
    before = left_behind(db)
    with pytest.raises(error) as caught:
        fetch(db, f"{site.url}{path}?token=very-secret")
    text = f"{caught.value.diag.message_primary}\n{caught.value.diag.message_detail}"
    assert message.format(url=site.url) in text
    assert "secret" not in text, "neither the query nor what the server wrote"
    assert left_behind(db) == before


def test_nobody_there(db: pythiadb.Connection) -> None:
    for uri, detail in (
        ("https://localhost:1/model.onnx", "Connection refused."),
        ("https://nosuch.invalid/model.onnx", "Failed to lookup"),
    ):
        with pytest.raises(psycopg.errors.IoError, match="could not fetch") as caught:
            fetch(db, uri)
        assert str(caught.value.diag.message_detail).startswith(detail)


def test_wrong_checksum(db: pythiadb.Connection, site: Site) -> None:
    before = left_behind(db)
    with pytest.raises(psycopg.DataError, match="does not have the checksum of its address") as caught:
        fetch(db, f"{site.url}/animals.onnx#sha256={'0' * 64}")
    assert f"Its sha256 is {SHA256}" in str(caught.value.diag.message_detail)
    for fragment in ("sha256=12", "md5=5", "sha256", f"sha256={SHA256}&x=1"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="unrecognized fragment"):
            fetch(db, f"{site.url}/animals.onnx#{fragment}")
    assert left_behind(db) == before


def test_answer_that_is_too_long(db: pythiadb.Connection, site: Site) -> None:
    """By the announced length, before anything is read."""
    site.sizes["/animals.onnx"] = LIMIT + 1
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match=f"has more than {LIMIT} bytes"):
        fetch(db, f"{site.url}/animals.onnx")


def test_what_comes_is_no_model(db: pythiadb.Connection, site: Site) -> None:
    site.files["/page"] = b"<html>Sign in</html>" * 20
    site.files["/empty"] = b""
    before = left_behind(db)
    for path, message in (("/page", "is not an ONNX model"), ("/empty", "empty")):
        with pytest.raises(psycopg.DataError, match=message):
            fetch(db, site.url + path)
    site.files["/outside"] = with_external("../secret")
    site.files["/beside"] = with_external("weights.bin")
    for path in ("/outside", "/beside"):  # an address is one file: external data stay out
        with pytest.raises(psycopg.DataError, match=r"outside the model folder|is missing"):
            fetch(db, site.url + path)
    assert left_behind(db) == before


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://example.com/model.onnx", "is not encrypted"),
        ("http://10.0.0.1/model.onnx", "is not encrypted"),
        ("ftp://localhost/model.onnx", "unsupported scheme"),
        ("model.onnx", "unsupported scheme"),
        ("gopher:///x", "unsupported scheme"),
        ("https://user:word@localhost/model.onnx", "user name or a password"),
        ("https://localhost/", "names no file"),
        ("https:///model.onnx", "names no file"),
        ("s3://bucket", "names no file"),
        ("https://[::1/model.onnx", "invalid model URI"),
    ],
)
def test_addresses_that_cannot_be(db: pythiadb.Connection, uri: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message) as caught:
        fetch(db, uri)
    assert "user:word" not in str(caught.value)
