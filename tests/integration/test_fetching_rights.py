"""Fetching with credentials, with and without the rights to it, from S3 and over https."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from fetching_calls import ANIMALS, SHA256, fetch, readable, score

import pythiadb
from tests.integration.web_servers import ACCESS_KEY, REGION, SECRET_KEY, Site, make_certificates, serve


@pytest.fixture
def keep(db: pythiadb.Connection) -> Iterator[Callable[..., str]]:
    """Keep credentials, which go with the test."""
    made: list[str] = []

    def create(**attributes: str) -> str:
        name = f"cred_{uuid.uuid4().hex[:8]}"
        db.execute("CALL dbms_vector.create_credential(%s, %s)", (name, json.dumps(attributes)))
        made.append(name)
        return name

    yield create
    for name in made:
        db.execute("CALL dbms_vector.drop_credential(%s)", (name,))


@pytest.fixture
def role(db: pythiadb.Connection) -> Iterator[str]:
    """A role with the right to load models into the test's schema, and no other."""
    name = f"loader_{uuid.uuid4().hex[:8]}"
    schema = db.execute("SELECT current_schema()").fetchone()
    assert schema is not None
    db.execute(f"CREATE ROLE {name}; GRANT USAGE, CREATE ON SCHEMA {schema[0]} TO {name}".encode())
    db.execute(f"CALL pythia.grant_create_model('{name}')".encode())
    yield name
    if not db.closed:
        db.rollback()
        db.execute(
            f"RESET ROLE; DROP OWNED BY {name} CASCADE; DELETE FROM pythia.credential WHERE owner = '{name}'::regrole; DROP ROLE {name}".encode()
        )


# Credentials --------------------------------------------------------------------------------------------------------------


def test_credentials_of_a_web_server(db: pythiadb.Connection, site: Site, keep: Callable[..., str]) -> None:
    site.tokens["/animals.onnx"] = "Bearer letmein"
    fetch(db, f"{site.url}/animals.onnx", keep(access_token="letmein"))
    assert score(db) == [0, 1, 0]
    site.tokens["/animals.onnx"] = "Basic YWxpY2U6d29uZGVy"  # alice:wonder in base64
    fetch(db, f"{site.url}/animals.onnx", keep(username="alice", password="wonder").upper(), "basic")
    with pytest.raises(psycopg.errors.IoError, match="The server answered 401") as caught:
        fetch(db, f"{site.url}/animals.onnx", keep(access_token="hunter2"), "wrong")
    assert "hunter2" not in str(caught.value)


def test_redirect_does_not_carry_the_credential_elsewhere(
    db: pythiadb.Connection, site: Site, keep: Callable[..., str]
) -> None:
    with serve(Site(files={"/real.onnx": ANIMALS})) as other:
        site.redirects["/animals.onnx"] = f"{other.url}/real.onnx"
        fetch(db, f"{site.url}/animals.onnx", keep(access_token="letmein"))
        assert score(db) == [0, 1, 0]
        assert site.requests[0][1]["authorization"] == "Bearer letmein"
        assert [("authorization" in headers) for _, headers in other.requests] == [False]
        site.redirects["/animals.onnx"] = f"{site.url}/animals.onnx"
        with pytest.raises(psycopg.errors.IoError, match="could not fetch"):
            fetch(db, f"{site.url}/animals.onnx", name="loop")
        site.redirects["/animals.onnx"] = "file:///etc/passwd"
        with pytest.raises(psycopg.Error) as caught:
            fetch(db, f"{site.url}/animals.onnx", name="local")
        assert "root:" not in str(caught.value)


def test_credentials_are_their_owners(
    db: pythiadb.Connection, site: Site, keep: Callable[..., str], role: str
) -> None:
    """Nobody reads the attributes back, and nobody else uses or drops a credential, or takes its name."""
    mine = keep(access_token="letmein")
    db.execute(f"CALL pythia.grant_cloud_access('{role}')".encode())
    site.tokens["/animals.onnx"] = "Bearer letmein"
    db.execute(f"SET ROLE {role}".encode())
    for statement in (
        "SELECT attributes FROM pythia.user_credentials",
        "SELECT * FROM pythia.credential",
        "UPDATE pythia.user_credentials SET attributes = '{}'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(statement.encode())
    assert db.execute("SELECT count(*) FROM pythia.user_credentials").fetchone() == (0,)
    with pytest.raises(psycopg.errors.UndefinedObject, match=f'credential "{mine}" does not exist') as caught:
        fetch(db, f"{site.url}/animals.onnx", mine)
    assert "create_credential" in str(caught.value.diag.message_hint)
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.execute("CALL dbms_vector.drop_credential(%s)", (mine,))
    db.execute('CALL dbms_vector.create_credential(%s, \'{"access_token": "letmein"}\')', (mine,))
    fetch(db, f"{site.url}/animals.onnx", mine)
    assert score(db) == [0, 1, 0]
    with pytest.raises(psycopg.errors.DuplicateObject, match="already exists"):
        db.execute('CALL dbms_vector.create_credential(%s, \'{"access_token": "x"}\')', (mine,))
    db.execute("CALL dbms_vector.drop_credential(%s)", (mine,))
    assert db.execute("SELECT count(*) FROM pythia.user_credentials").fetchone() == (0,)


@pytest.mark.parametrize(
    "attributes", ["{}", '{"token": "x"}', '{"access_token": 5}', '{"username": null}', "[]"]
)
def test_credentials_that_cannot_be(db: pythiadb.Connection, attributes: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        db.execute("CALL dbms_vector.create_credential('wrong', %s)", (attributes,))


@pytest.mark.parametrize("name", [None, ""])
def test_a_credential_without_a_name_shows_no_secret(db: pythiadb.Connection, name: str | None) -> None:
    with pytest.raises(
        psycopg.errors.NullValueNotAllowed, match="credential name must not be empty"
    ) as caught:
        db.execute('CALL dbms_vector.create_credential(%s, \'{"access_token": "letmein"}\')', (name,))
    assert "letmein" not in str(caught.value)


@pytest.mark.parametrize("path", ["models", "", None])
def test_directories_are_absolute(db: pythiadb.Connection, path: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is not absolute"):
        db.execute("CALL pythia.create_directory('relative', %s)", (path,))


def test_rights_to_fetch(db: pythiadb.Connection, site: Site, fetch_dir: Path, role: str) -> None:
    """Loading, the network and files of the server are three rights."""
    (fetch_dir / "animals.onnx").write_bytes(ANIMALS)
    readable(fetch_dir)
    web, local = f"{site.url}/animals.onnx", f"file://{fetch_dir}/animals.onnx"
    db.execute(f"SET ROLE {role}".encode())
    for uri in (web, local):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            fetch(db, uri)
    for call in (
        f"SELECT pythia.fetch_network_file('{web}', NULL)",
        f"SELECT pythia.fetch_server_file('{local}')",
        f"SELECT pythia.fetch_files('{local}', NULL)",
        "SELECT pythia.fetch_any_directory_file('fetch_dir', 'animals.onnx', NULL)",
        "SELECT pythia.fetch_directory_file('fetch_dir', 'animals.onnx', NULL)",
        "CALL dbms_vector.load_onnx_model('fetch_dir', 'animals.onnx', 'fetched')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(call.encode())
    assert site.requests == []
    db.execute(f"RESET ROLE; CALL pythia.grant_cloud_access('{role}'); SET ROLE {role}".encode())
    fetch(db, web)
    assert score(db) == [0, 1, 0]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        fetch(db, local, name="file")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        db.execute("SELECT pythia.fetch_network_file(%s, NULL)", (local,))
    db.execute(f"RESET ROLE; GRANT pg_read_server_files TO {role}; SET ROLE {role}".encode())
    fetch(db, local, name="file")
    db.execute("RESET ROLE")
    db.execute(
        f"CALL pythia.create_directory('FETCH_DIR', '{fetch_dir}', ARRAY['{role}']::regrole[])".encode()
    )
    db.execute(f"REVOKE pg_read_server_files FROM {role}; SET ROLE {role}".encode())
    db.execute("CALL dbms_vector.load_onnx_model('fetch_dir', 'animals.onnx', 'shared')")
    assert score(db, "shared") == [0, 1, 0]


def test_fetching_without_the_right_to_load(db: pythiadb.Connection, site: Site, role: str) -> None:
    db.execute(f"DROP OWNED BY {role}".encode())
    schema = db.execute("SELECT current_schema()").fetchone()
    db.execute(
        f"GRANT USAGE, CREATE ON SCHEMA {schema[0]} TO {role}; CALL pythia.grant_cloud_access('{role}')".encode()
    )  # type: ignore[index]
    db.execute(f"SET ROLE {role}".encode())
    with pytest.raises(
        psycopg.errors.InsufficientPrivilege, match="permission denied to load models"
    ) as caught:
        fetch(db, f"{site.url}/animals.onnx")
    assert caught.value.diag.message_hint == f"CALL pythia.grant_create_model('{role}');"
    assert site.requests == []


# S3 -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[Site]:
    """An S3-like server that checks signatures."""
    with serve(Site(files={"/models/dir/animals.onnx": ANIMALS}, signed=True)) as running:
        yield running


def test_object_of_a_bucket(db: pythiadb.Connection, bucket: Site, keep: Callable[..., str]) -> None:
    """With keys under S3's names, and as Oracle's credentials call them."""
    common = {"region": REGION, "endpoint": bucket.url}
    fetch(
        db,
        "s3://models/dir/animals.onnx",
        keep(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY, **common),
    )
    assert score(db) == [0, 1, 0]
    uri = f"s3://models/dir/animals.onnx#sha256={SHA256}"
    fetch(db, uri, keep(username=ACCESS_KEY, password=SECRET_KEY, **common), "oracles")
    assert score(db, "oracles") == [0, 1, 0]
    bucket.failures["/models/dir/animals.onnx"] = [503, 0]
    fetch(db, uri, keep(username=ACCESS_KEY, password=SECRET_KEY, **common), "repeated")


def test_bucket_that_refuses(db: pythiadb.Connection, bucket: Site, keep: Callable[..., str]) -> None:
    common = {"region": REGION, "endpoint": bucket.url}
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    for credential in (keep(**common), keep(**keys | {"secret_access_key": "wrong"}, **common)):
        with pytest.raises(psycopg.errors.IoError, match="The server answered 403"):
            fetch(db, "s3://models/dir/animals.onnx", credential)
    with pytest.raises(psycopg.errors.UndefinedFile, match="s3://models/nosuch.onnx"):
        fetch(db, "s3://models/nosuch.onnx", keep(**keys, **common))
    for endpoint, message in (
        ("http://example.com", "is not encrypted"),
        ("file:///etc", "is not an https address"),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
            fetch(db, "s3://models/dir/animals.onnx", keep(**keys, endpoint=endpoint))


# https --------------------------------------------------------------------------------------------------------------------


def test_certificates(db: pythiadb.Connection, tmp_path: Path) -> None:
    """Of an unknown authority: refused with the reason. With the authority among those of the system: served."""
    authority, certificate = make_certificates(tmp_path)
    with serve(Site(files={"/animals.onnx": ANIMALS}), certificate) as site:
        uri = f"{site.url}/animals.onnx"
        with pytest.raises(psycopg.errors.IoError, match="could not fetch") as caught:
            fetch(db, uri)
        assert caught.value.diag.message_detail == "The server's certificate is not accepted: UnknownIssuer."
        assert site.requests == []
        call = f"from pathlib import Path; from pythiadb.models.remote import fetch; fetch({uri!r}, None, 10**6, Path({str(tmp_path)!r}))"
        trusting = os.environ | {"SSL_CERT_FILE": str(authority)}
        subprocess.run([sys.executable, "-c", call], env=trusting, check=True)
        assert (tmp_path / "model.onnx").read_bytes() == ANIMALS
        with serve(Site(files={"/animals.onnx": ANIMALS})) as plain:  # down from https: not followed
            site.redirects["/animals.onnx"] = f"{plain.url}/animals.onnx"
            failed = subprocess.run(
                [sys.executable, "-c", call], env=trusting, capture_output=True, text=True, check=False
            )
            assert "TransferFailed" in failed.stderr
            assert plain.requests == []
