"""The least that dblink can call: the physical limit beside Pythia's engine. No checks, no queue, no log, one process.

`python -m bench.stub_engine FOLDER` listens in FOLDER. Every command gets the answer "pong"; one that starts with "embed " gets
the embedding of the rest, computed in the event loop by the plain loop of bench/plain.py.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psycopg

from bench.plain import PlainLoop
from pythiadb.engine import protocol
from pythiadb.vectors.codec import vector_to_text

PORT = 5432
PONG = protocol.result([b"pong"])

# What pythia.engine_call does without signing, checking rights, reconnecting and letting go of cancelled calls.
CALL = """
CREATE OR REPLACE FUNCTION public.stub_call(message text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE answer text;
BEGIN
    IF NOT coalesce('stub' = ANY (pythia.dblink_get_connections()), false) THEN
        PERFORM pythia.dblink_connect_u('stub', 'host={folder} port={port} user=stub dbname=stub');
    END IF;
    SELECT line INTO answer FROM pythia.dblink('stub', message) AS t(line text);
    RETURN answer;
END $$
"""


class StubSession(asyncio.Protocol):
    """One connection."""

    def __init__(self, loop: PlainLoop) -> None:
        self._loop = loop
        self._wire = protocol.Wire(1 << 20)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for event in self._wire.feed(data):
            if isinstance(event, protocol.Startup):
                self._transport.write(protocol.WELCOME)
            elif isinstance(event, protocol.Query):
                self._transport.write(self._answer(event.text))

    def _answer(self, text: bytes) -> bytes:
        if text.startswith(b"embed "):
            return protocol.result([vector_to_text(self._loop.embed([text[6:].decode()], 1)[0])])
        return protocol.COMMAND_SET if text.startswith(b"SET ") else PONG


async def serve(folder: Path) -> None:
    """Listen until the process ends."""
    loop = PlainLoop()
    path = folder / f".s.PGSQL.{PORT}"
    server = await asyncio.get_running_loop().create_unix_server(lambda: StubSession(loop), str(path))
    path.chmod(0o777)  # a throw-away socket in a throw-away folder
    await server.serve_forever()


@contextmanager
def stub(db: psycopg.Connection[tuple[str]]) -> Iterator[None]:
    """Run the stub during the block and make the function public.stub_call(message) in the database."""
    with tempfile.TemporaryDirectory(prefix="pythia-stub-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        process = subprocess.Popen([sys.executable, "-m", "bench.stub_engine", name])
        try:
            while not (folder / f".s.PGSQL.{PORT}").exists():
                if process.poll() is not None:
                    raise RuntimeError("the stub did not start")
            db.execute(CALL.format(folder=name, port=PORT).encode())
            yield
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
