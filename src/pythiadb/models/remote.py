"""Model files from elsewhere: an https or S3 address, or a file of this machine.

What comes is bounded in size and time, repeated when the other side fails for a moment, and compared with the checksum that
the address may carry: `https://host/model.onnx#sha256=…`. Everything leaves as files; nothing of it is run or parsed here.
Who may call this is checked in the database; plain http is for addresses of this machine only.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import obstore
from obstore import exceptions as failures
from obstore.store import HTTPStore, S3Store

from pythiadb.errors import InvalidModel, InvalidParameter, LimitExceeded, TransferFailed, UndefinedFile
from pythiadb.models.locations import external_locations
from pythiadb.models.package import GRAPH, is_stored_name, safe_name

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("file", "http", "https", "s3")
CREDENTIAL_KEYS = (
    "access_token", "username", "password",
    "access_key_id", "secret_access_key", "session_token", "region", "endpoint",
)  # fmt: skip
ATTEMPTS = 3  # for a transfer that breaks off; a request that fails is repeated by the library
PIECE_BYTES = 1 << 20
_RETRY: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(minutes=2)}
_TIMES: ClientConfig = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "1h"}
_STATUS = re.compile(r"status code: (\d{3}[A-Za-z -]*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What the library says in its description of an error, and what that means.
_REASONS = (
    (
        re.compile(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)"),
        "The server's certificate is not accepted: {}.",
    ),
    (re.compile(r"kind: TimedOut"), "The server does not answer in time."),
    (re.compile(r"kind: UnexpectedEof|IncompleteMessage|IncompleteBody"), "The connection broke off."),
    (re.compile(r'(?:message|error): "([^"]+)"'), "{}."),
)

Credential = Mapping[str, Any]


def fetch(uri: str, credential: Credential | None, max_bytes: int, folder: Path) -> list[Path]:
    """Put the model file at `uri` into `folder` as model.onnx and return its path.

    A local file brings the files that hold its external data, under their own names. `credential` holds some of
    CREDENTIAL_KEYS. Raise InvalidParameter for an address or credential that cannot be used, UndefinedFile,
    TransferFailed, LimitExceeded for more than `max_bytes`, InvalidModel for a wrong checksum.
    """
    address = _parse(uri)
    wanted = _checksum(address)
    files = Receiver(folder, max_bytes)
    if address.scheme == "file":
        received = _fetch_local(Path(unquote(address.path)), files)
    else:
        received = [_fetch_remote(address, credential or {}, files)]
    if wanted is not None and files.digest != wanted:
        raise InvalidModel(
            f'"{_shown(address)}" does not have the checksum of its address',
            detail=f"Its sha256 is {files.digest}, expected {wanted}.",
        )
    return received


class Receiver:
    """Writes files into a folder, at most `max_bytes` in all; `digest` is the sha256 of the graph."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._total = 0
        self.digest = ""

    def check(self, size: int) -> None:
        """Raise LimitExceeded if `size` more bytes are too many."""
        if self._total + size > self._max_bytes:
            raise LimitExceeded(
                f"the model has more than {self._max_bytes} bytes",
                hint="Raise the engine setting max_model_bytes.",
            )

    def write(self, name: str, pieces: Iterable[bytes]) -> Path:
        """Write one file; what a broken transfer left of it is replaced."""
        path, size, digest = self._folder / name, 0, hashlib.sha256()
        with path.open("wb") as stream:
            for piece in pieces:
                size += len(piece)
                self.check(size)
                digest.update(piece)
                stream.write(piece)
        self._total += size
        if name == GRAPH:
            self.digest = digest.hexdigest()
        return path


def _parse(uri: str) -> SplitResult:
    try:
        address = urlsplit(uri)
        host = address.hostname
    except ValueError as error:
        raise InvalidParameter("invalid model URI", detail=f"{error}.") from error
    if address.scheme not in SCHEMES:
        raise InvalidParameter(
            f'model URI has the unsupported scheme "{address.scheme}"',
            hint="Use https://host/path, s3://bucket/key or file:///path.",
        )
    if address.scheme == "file" and (host or not address.path.startswith("/")):
        raise InvalidParameter("a file URI needs an absolute path", hint="Write file:///path/model.onnx.")
    if address.scheme != "file" and (not host or not address.path.strip("/")):
        raise InvalidParameter(f'model URI "{_shown(address)}" names no file')
    if address.username or address.password:
        raise InvalidParameter(
            "model URI holds a user name or a password",
            hint="Call dbms_vector.create_credential and name the credential.",
        )
    _refuse_open_http(address)
    return address


def _refuse_open_http(address: SplitResult) -> None:
    if address.scheme == "http" and not _is_loopback(address.hostname or ""):
        raise InvalidParameter(
            f'"{_shown(address)}" is not encrypted', hint="Use https; plain http is for this machine only."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checksum(address: SplitResult) -> str | None:
    if not address.fragment:
        return None
    options = dict(parse_qsl(address.fragment))
    value = options.get("sha256", "").lower()
    if set(options) != {"sha256"} or not _SHA256.fullmatch(value):
        raise InvalidParameter(
            f'unrecognized fragment "{address.fragment}" in a model URI',
            hint="Write #sha256= and 64 hexadecimal digits.",
        )
    return value


def _shown(address: SplitResult) -> str:
    """Return the address without what may be a secret: user and query."""
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _fetch_local(path: Path, files: Receiver) -> list[Path]:
    received = [_copy(path, GRAPH, files)]
    for name in external_locations(received[0]):
        source = (path.parent / name).resolve()
        if not safe_name(name) or not source.is_relative_to(path.parent.resolve()):
            raise InvalidModel(f'external data lies outside the model folder: "{name}"')
        if "/" in name or name == GRAPH:
            raise InvalidModel(f'external data file "{name}" must lie beside the model, under another name')
        if not is_stored_name(name):
            raise InvalidModel(
                f'external data file "{name}" has a name that the database cannot store',
                detail="It may have letters of ASCII, digits, and _ . - behind the first character.",
                hint="Load the model with pythia model load, which renames the file.",
            )
        if not source.exists():
            raise InvalidModel(f'external data file "{name}" is missing')
        received.append(_copy(source, name, files))
    return received


def _copy(source: Path, name: str, files: Receiver) -> Path:
    try:
        files.check(source.stat().st_size)
        if not source.is_file():
            raise InvalidParameter(f'"{source}" is not a regular file')
        with source.open("rb") as stream:
            return files.write(name, iter(lambda: stream.read(PIECE_BYTES), b""))
    except FileNotFoundError as error:
        raise UndefinedFile(f'could not open file "{source}": No such file or directory') from error
    except OSError as error:
        raise TransferFailed(
            f'could not read file "{source}": {error.strerror}',
            hint="The engine's system user must be able to read it.",
        ) from error


def _fetch_remote(address: SplitResult, credential: Credential, files: Receiver) -> Path:
    for attempt in range(ATTEMPTS):
        with _own_errors(address):
            store, path = _open(address, credential)
            answer = obstore.get(store, path)
            files.check(answer.meta["size"])
            try:
                return files.write(GRAPH, map(bytes, answer.stream(min_chunk_size=PIECE_BYTES)))
            except failures.GenericError:  # the transfer broke off
                if attempt == ATTEMPTS - 1:
                    raise
    raise AssertionError


def _open(address: SplitResult, credential: Credential) -> tuple[HTTPStore | S3Store, str]:
    """Return the store of an address and the path in it."""
    unknown = sorted(set(credential) - set(CREDENTIAL_KEYS))
    if unknown:
        raise InvalidParameter(
            f'unrecognized key "{unknown[0]}" in a credential',
            hint=f"Known keys are {', '.join(CREDENTIAL_KEYS)}.",
        )
    if address.scheme == "s3":
        return _bucket(address, credential), address.path.lstrip("/")
    client: ClientConfig = {**_TIMES, "allow_http": address.scheme == "http"}
    header = _authorization(credential)
    if header is not None:
        client["default_headers"] = {"authorization": header}
    uri = address._replace(fragment="").geturl()
    return HTTPStore.from_url(uri, client_options=client, retry_config=_RETRY), ""


def _authorization(credential: Credential) -> str | None:
    if "access_token" in credential:
        return f"Bearer {credential['access_token']}"
    if "username" in credential:
        pair = f"{credential['username']}:{credential.get('password', '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return None


def _bucket(address: SplitResult, credential: Credential) -> S3Store:
    """Open a bucket with the credential's keys, without a signature if it has none: never with the engine's own."""
    keys = ("access_key_id", "secret_access_key", "session_token", "region", "endpoint")
    config: Any = {key: str(credential[key]) for key in keys if key in credential}
    if "username" in credential:  # as Oracle's credentials for S3 call the two keys
        config |= {
            "access_key_id": credential["username"],
            "secret_access_key": credential.get("password", ""),
        }
    config.setdefault("region", "us-east-1")
    config["skip_signature"] = "access_key_id" not in config
    client: ClientConfig = {**_TIMES}
    if "endpoint" in config:
        endpoint = urlsplit(config["endpoint"])
        if endpoint.scheme not in ("http", "https"):
            raise InvalidParameter('"endpoint" in a credential is not an https address')
        _refuse_open_http(endpoint)
        client["allow_http"] = endpoint.scheme == "http"
    return S3Store(address.netloc, config=config, client_options=client, retry_config=_RETRY)


@contextmanager
def _own_errors(address: SplitResult) -> Iterator[None]:
    """Turn the library's errors into ours; its texts hold the whole address and what the server wrote."""
    try:
        yield
    except FileNotFoundError as error:
        raise UndefinedFile(f'there is no file at "{_shown(address)}"') from error
    except (failures.BaseError, ValueError) as error:
        raise TransferFailed(f'could not fetch "{_shown(address)}"', detail=_reason(str(error))) from error


def _reason(text: str) -> str:
    status = _STATUS.search(text)
    if status:
        return f"The server answered {status[1].strip()}."
    for pattern, sentence in _REASONS:
        if found := pattern.search(text):
            return sentence.format(*(word[0].upper() + word[1:] for word in found.groups()))
    line = re.sub(r"\S+://\S+", "the address", text.partition("\n")[0])
    return f"{line.rstrip('. ')}."
