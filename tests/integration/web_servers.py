"""Small servers of this machine that models are fetched from: a web server that can fail on purpose, and an S3-like one."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ACCESS_KEY, SECRET_KEY, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-test-1"


@dataclass
class Site:
    """What a server serves, by path, and what it was asked for.

    `tokens` are values of Authorization that a path demands; `failures` are statuses to answer first, 0 for a connection that
    breaks off in the middle; `redirects` are other addresses; `sizes` are lies about the length. With `signed`, requests have
    to carry an AWS signature by SECRET_KEY.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    failures: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    signed: bool = False
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def status(self, method: str, path: str, headers: dict[str, str]) -> int:
        """What a request is answered with."""
        name = urlsplit(path).path
        if self.failures.get(name):
            return self.failures[name].pop(0)
        if name in self.redirects:
            return 302
        if self.signed and headers.get("authorization") != signature(method, path, headers):
            return 403
        if name in self.tokens and headers.get("authorization") != self.tokens[name]:
            return 401
        return 200 if name in self.files else 404


def signature(method: str, path: str, headers: dict[str, str]) -> str:
    """The Authorization header that AWS's Signature Version 4 demands of a request without a query."""
    given = headers.get("authorization", "")
    signed = given.partition("SignedHeaders=")[2].partition(",")[0]
    stamp = headers.get("x-amz-date", "")
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in signed.split(";")]
    request = "\n".join([method, path, "", "".join(lines), signed, headers.get("x-amz-content-sha256", "")])
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (stamp[:8], REGION, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    proof = hmac.digest(key, text.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, Signature={proof}"


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            site.requests.append((self.path, headers))
            status, name = site.status(self.command, self.path, headers), urlsplit(self.path).path
            body = site.files.get(name, b"") if status in (0, 200) else b"<secret>no</secret>"
            self.send_response(status or 200)
            if status == 302:
                self.send_header("location", site.redirects[name])
            self.send_header("content-length", str(site.sizes.get(name, len(body))))
            self.end_headers()
            self.wfile.write(body if status else body[: len(body) // 2])
            self.close_connection = not status or name in site.sizes

        do_HEAD = do_GET  # noqa: N815  (the library's name)

    return Handler


@contextmanager
def serve(site: Site, certificate: Path | None = None) -> Iterator[Site]:
    """Serve a site on a free port, over https with a certificate (a file with its key)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that do not trust it hang up
    site.url = f"{'https' if certificate else 'http'}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """Make an authority and a certificate of its for localhost; return the authority's and the server's file."""
    authority, leaf, both = folder / "ca.pem", folder / "leaf.pem", folder / "both.pem"
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -keyout {folder}/ca.key -out {authority} -days 2 -subj /CN=test",
        f"req -newkey rsa:2048 -nodes -keyout {folder}/leaf.key -out {folder}/leaf.csr -subj /CN=localhost",
        f"x509 -req -in {folder}/leaf.csr -CA {authority} -CAkey {folder}/ca.key -CAcreateserial -days 2 -out {leaf} -extfile {names}",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    both.write_bytes(leaf.read_bytes() + (folder / "leaf.key").read_bytes())
    return authority, both
