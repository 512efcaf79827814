"""A real S3-compatible server on loopback (moto's), and a proxy that fails some of its requests."""

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}
_BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>on purpose</Message>'
    b"</Error>"
)


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's S3 server; gives its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Flaky(ThreadingHTTPServer):
    """Passes requests on to an S3 server, and fails a share of them, drawn from a seeded generator.

    Attributes:
        passed: how many requests went through.
        failed: how many did not, by kind: refused with status 500 or 503; closed before the server
            saw them; answer lost after the server had acted; answer cut in the middle.
    """

    daemon_threads = True
    kinds = ("500", "503", "closed", "lost", "cut")

    def __init__(self, upstream: str, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.share, self._random, self._lock = share, random.Random(seed), threading.Lock()
        self.passed, self.failed = 0, Counter[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fate(self) -> str | None:
        """How the next request fails; None where it does not."""
        with self._lock:
            if self._random.random() >= self.share:
                self.passed += 1
                return None
            kind = self._random.choice(self.kinds)
            self.failed[kind] += 1
            return kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Flaky

    def _pass_on(self) -> None:
        body = self._body()
        fate = self.server.fate()
        if fate == "closed":
            self.close_connection = True
            return
        if fate in ("500", "503"):
            code = {"500": b"InternalError", "503": b"ServiceUnavailable"}[fate]
            self._answer(int(fate), [("Content-Type", "application/xml")], _BUSY % code)
            return
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if fate == "lost":
            self.close_connection = True
            return
        kept = [(k, v) for k, v in response.getheaders() if k.lower() not in _HOP]
        length = int(response.getheader("Content-Length") or len(content))
        self._answer(response.status, kept, content, length, cut=fate == "cut")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes,
        length: int | None = None, cut: bool = False,
    ) -> None:  # fmt: skip
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def flaky_server(upstream: str, share: float, seed: int = 0) -> Iterator[Flaky]:
    """Run a `Flaky` in front of an S3 server."""
    server = Flaky(upstream, share, seed)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
