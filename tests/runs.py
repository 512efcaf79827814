"""What tests of whole runs of segswap-generate share: small settings, and looks at what is left."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

# Small pairs in many shards: an interruption always falls between two of them.
SETTINGS = {
    "pairs": 300, "val_pairs": 15, "val_share": 0.5, "shard_pairs": 15, "size": 128, "objects": "1"
}  # fmt: skip
CARD = {"README.md", "examples.jpg", "attribution.csv", "croissant.json"}
BESIDE = {"segswap.json", "throughput.json", *CARD}

_HANDLED = (signal.SIGINT, signal.SIGTERM)


def shards(out: Path) -> list[Path]:
    """The shards that are there."""
    return sorted(out.glob("*.tar"))


def hashes(dataset: Path) -> dict[str, str]:
    """SHA-256 of every shard's file, after checking it against the manifest."""
    manifest = json.loads((dataset / "segswap.json").read_text())
    found = {}
    for split in manifest["splits"].values():
        assert split["pairs"] == sum(shard["pairs"] for shard in split["shards"])
        for shard in split["shards"]:
            data = (dataset / shard["name"]).read_bytes()
            assert len(data) == shard["bytes"]
            found[shard["name"]] = hashlib.sha256(data).hexdigest()
            assert found[shard["name"]] == shard["sha256"]
    return found


def assert_clean(dataset: Path) -> None:
    """Shards, manifest, card and throughput, and nothing else."""
    names = {path.name for path in dataset.iterdir()}
    assert names == {*hashes(dataset), *BESIDE}


def assert_same(dataset: Path, undisturbed: Path) -> None:
    """A finished dataset is as an undisturbed run leaves it: bytes, and account of what was lost.

    Also every index is there once, whatever the undisturbed run did.
    """
    assert_clean(dataset)
    assert hashes(dataset) == hashes(undisturbed)
    assert _account(dataset) == _account(undisturbed)
    for name in ("attribution.csv", "examples.jpg"):
        assert (dataset / name).read_bytes() == (undisturbed / name).read_bytes()
    for split, entry in _account(dataset)["splits"].items():
        keys = [key for shard in entry["shards"] for key in keys_of(dataset / shard["name"])]
        assert keys == [f"{index:09d}" for index in range(entry["pairs"])], split


def _account(dataset: Path) -> dict[str, Any]:
    manifest = json.loads((dataset / "segswap.json").read_text())
    del manifest["created"]
    return manifest


def keys_of(shard: Path) -> list[str]:
    """The keys of a shard's samples, in order."""
    with tarfile.open(shard) as tar:
        return list(dict.fromkeys(name.split(".")[0] for name in tar.getnames()))


def assert_unfinished(out: Path) -> None:
    """No manifest, no temporary file, and every shard that is there is complete."""
    assert not (out / "segswap.json").exists()
    assert not list(out.glob(".*.tmp"))
    assert_whole_shards(out)


def assert_whole_shards(out: Path) -> None:
    """Every tar file of an unfinished dataset is complete."""
    for path in shards(out):
        with tarfile.open(path) as tar:
            assert len(tar.getnames()) == SETTINGS["shard_pairs"] * 5
        assert path.read_bytes()[-1024:] == bytes(1024)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something has happened while the process still runs."""
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def processes_below(pid: int) -> set[int]:
    """All descendants of a process that have not ended."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rsplit(")")[-1].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    below = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in below} - below
        if not more:
            return below - {pid}
        below |= more


def writing(out: Path, pid: int) -> list[int]:
    """Descendants of a process that are in the middle of a shard."""
    names = [path.name.split(".")[-2] for path in out.glob(".train-*.tmp")]
    return sorted({int(name) for name in names} & processes_below(pid))


def in_process(
    main: Callable[[], None], name: str, *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which takes no second to start; returns what a finished one
    of its own would have left.
    """
    words, out, err = [name, *map(str, arguments)], io.StringIO(), io.StringIO()
    given, before, handlers = sys.argv, Path.cwd(), list(map(signal.getsignal, _HANDLED))
    sys.argv = words
    try:
        if cwd is not None:
            os.chdir(cwd)
        with redirect_stdout(out), redirect_stderr(err):
            main()
        status: object = 0
    except SystemExit as end:
        status = end.code
    finally:
        os.chdir(before)
        sys.argv = given
    assert list(map(signal.getsignal, _HANDLED)) == handlers, "the command left its own handlers"
    assert isinstance(status, int)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
