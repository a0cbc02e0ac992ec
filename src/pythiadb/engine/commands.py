"""The commands that database functions send to the engine: their form, and the check that such a function sent them.

A command is one line of text, perhaps with bulk data in the lines after it:

    SIGNATURE TIME VERB PAYLOAD
    ATTACHMENT

SIGNATURE is hex(sha256(secret || sha256("TIME VERB PAYLOAD"))), made by pythia.engine_call with a secret that only it can
read. The inner hash makes the outer input of fixed length, so the signature cannot be extended. TIME is the number of
seconds since 1970; the database and its engine share a machine, hence a clock. The attachment is not signed: hashing
megabytes in SQL costs more than moving them, and whatever comes so is checked by its content.

The payload is JSON as PostgreSQL writes it, in which a line end within a string is the two characters \\n.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from pythiadb.errors import PythiaError


class NotSigned(PythiaError):
    """The command was not sent by one of Pythia's own functions."""

    sqlstate = "28000"


class Command(NamedTuple):
    """A verified command; the payload is JSON or empty, the attachment (not verified) mostly empty."""

    verb: str
    payload: bytes
    attachment: bytes


def sign(secret: bytes, now: int, verb: str, payload: bytes) -> bytes:
    """Return the whole command line; the database does the same in SQL, tests do it here."""
    body = b"%d %s %s" % (now, verb.encode(), payload)
    return _signature(secret, body).encode() + b" " + body


def _signature(secret: bytes, body: bytes) -> str:
    return hashlib.sha256(secret + hashlib.sha256(body).digest()).hexdigest()


def verify(text: bytes, secret: bytes, now: float, max_age: int) -> Command:
    """Return the command if its signature and age are right, else raise NotSigned."""
    line, _, attachment = text.partition(b"\n")
    signature, _, body = line.partition(b" ")
    if not hmac.compare_digest(signature, _signature(secret, body).encode()):
        raise NotSigned(
            "the engine takes commands from Pythia's own functions only",
            hint="SELECT vector_embedding(model, text);",
        )
    time, _, rest = body.partition(b" ")
    if abs(now - int(time)) > max_age:
        raise NotSigned(
            "the command is too old",
            detail=f"It was signed {now - int(time):.0f} s ago, {max_age} s are allowed.",
        )
    verb, _, payload = rest.partition(b" ")
    return Command(verb.decode(), payload, attachment)


def read_payload(payload: bytes) -> Any:
    """Return the value of a payload. A number beyond double precision, as numeric may be, becomes an int."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return json.loads(payload, parse_int=_whole, parse_float=_number)


def _whole(text: str) -> int:
    return int(Decimal(text))  # int() takes 4300 digits only


def _number(text: str) -> float:
    value = float(text)
    return _whole(text) if math.isinf(value) else value
