"""Why Ray does not start, or no cluster is joined: each reason by its name, and before long."""

import os
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.command import cluster
from pipelines.command.cluster import import_ray, ray_cluster
from pipelines.command.tasks import run_on_ray
from segswap.files.extras import MissingExtraError

LONG = "x" * 90


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("short", None), (LONG, "/tmp/ray"), ("missing/folder", "/tmp/ray"), ("file", "/tmp/ray"),
    ],
)  # fmt: skip
def test_the_folder_of_sockets(
    wanted: str, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        for name in ("short", LONG):
            Path(place, name).mkdir()
        Path(place, "file").touch()
        monkeypatch.setenv("TMPDIR", f"{place}/{wanted}")
        assert cluster._folder() == found


def test_no_folder_of_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_can_write", lambda folder: False)
    with pytest.raises(RuntimeError, match=r"Ray has no folder for its sockets.*--workers 0"):
        cluster._folder()


@pytest.mark.parametrize(
    ("limit", "said"),
    [(149, "is 149, of which Ray needs some 150: raise it .ulimit -u."), (150, "^$")],
)
def test_limits_of_processes(limit: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert re.search(said, cluster._too_few(cluster._FEWEST))


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'segswap\[generate\]'.*--workers 0"):
        import_ray()


def silent(there: socket.socket) -> None:
    threading.Event().wait(2)


def web(there: socket.socket) -> None:
    there.recv(100)
    there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def closes(there: socket.socket) -> None:
    """Says nothing, and goes."""


@pytest.mark.parametrize(
    ("program", "said"),
    [(silent, "says nothing in 0.5 s"), (web, "another program is there, not Ray"),
     (closes, "another program is there, not Ray|reset")],
)  # fmt: skip
def test_a_port_of_another_program(
    program: Callable[[socket.socket], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            there, _ = server.accept()
            with there:
                program(there)

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(RuntimeError, match=f"{address} .*({said}).*leave out --address"),
            ray_cluster(1, address),
        ):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/dev/null", None, LONG])
def test_a_home_and_a_folder_that_cannot_be_used(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray works all the same, and leaves nothing in the home."""
    before = {name: os.environ.get(name) for name in cluster._AUTH}
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        (tmp_path / LONG).mkdir()
        monkeypatch.setenv("HOME", home if home == "/dev/null" else str(tmp_path / LONG))
        monkeypatch.setenv("TMPDIR", str(tmp_path / LONG))
    with ray_cluster(1, store=80 * 2**20):
        assert list(run_on_ray(abs, [-1, -2], 1)) == [1, 2]
    assert {name: os.environ.get(name) for name in cluster._AUTH} == before
    assert home is None or not list((tmp_path / LONG).iterdir())
