"""Shards that are missing or damaged are named, or passed over; a failing store is neither."""

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from made_matches import same_batch
from streams import indices, made, stream_of, uploaded

from segswap.data.manifest import MANIFEST, DatasetError
from segswap.data.shards import Shard
from segswap.files.hashes import file_hash
from segswap.files.stores import StorageError


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A dataset of twelve pairs in four shards, to be damaged."""
    return Path(made(tmp_path / "damaged", 12))


def missing(folder: Path) -> None:
    (folder / "train-000001.tar").unlink()


def cut_short(folder: Path) -> None:
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:7000])


def no_tar(folder: Path) -> None:
    (folder / "train-000001.tar").write_bytes(b"anything" * 500)


def fewer(folder: Path) -> None:
    made(folder.parent / "other", 2)
    (folder.parent / "other" / "train-000000.tar").rename(folder / "train-000001.tar")


def flipped(folder: Path) -> None:
    """Within a picture, which a decoder would take."""
    path = folder / "train-000001.tar"
    offset, size = Shard.open(path).samples[1]["source.jpg"]
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 1
    path.write_bytes(data)


def undecodable(folder: Path) -> None:
    """A shard that was written so, and is listed so."""
    path = folder / "train-000001.tar"
    offset, size = Shard.open(path).samples[1]["source.jpg"]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = bytes(size)
    before = file_hash(path)
    path.write_bytes(data)
    manifest = folder / MANIFEST
    manifest.write_text(manifest.read_text().replace(before, file_hash(path)))


BAD = [
    (missing, "train-000001.tar is missing", 3), (cut_short, "train-000001.tar", 3),
    (no_tar, "train-000001.tar", 3), (fewer, "train-000001.tar holds 2 pairs .* listed with 3", 3),
    (flipped, "train-000001.tar is damaged: its SHA-256 is", 3),
    (undecodable, r"train-000001.tar, sample 1: .*source", 1),
]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("damage", "message", "lost"), BAD)
def test_a_bad_shard_is_an_error_that_names_it(
    damaged: Path, damage: object, message: str, lost: int, workers: int
) -> None:
    damage(damaged)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=message) as raised:
        list(stream_of(str(damaged), workers=workers).batches(4, 0, 3))
    # Not with a loader process's traceback.
    assert "\n" not in str(raised.value)
    assert type(raised.value) is DatasetError


@pytest.mark.parametrize(("damage", "message", "lost"), BAD)
def test_with_skip_bad_other_samples_take_its_place(
    damaged: Path, damage: object, message: str, lost: int, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(damaged)  # type: ignore[operator]
    items = stream_of(str(damaged), skip_bad=True)
    bad = {4} if lost == 1 else {3, 4, 5}
    for epoch in range(3):
        drawn = indices(items, range(12 * epoch, 12 * epoch + 12))
        # The others all come, and some of them once more.
        assert {*drawn} == {*range(12)} - bad
    said = capfd.readouterr().err
    assert said.count("skipped: ") == 1
    assert "train-000001.tar" in said
    names = [items.name(number) for number in range(12)]
    assert not any("000001" in name for name in names) or lost == 1
    assert not any(name.endswith("000001.tar, sample 1") for name in names)


def test_skipping_is_the_same_in_loader_processes_and_said_once(
    damaged: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing(damaged)
    alone = list(stream_of(str(damaged), skip_bad=True).batches(2, 0, 12))
    capfd.readouterr()
    items = stream_of(str(damaged), skip_bad=True, workers=2)
    shared = list(items.batches(2, 0, 12))
    assert all(same_batch(a, b) for a, b in zip(alone, shared, strict=True))
    again = list(items.batches(2, 6, 12))
    assert all(same_batch(a, b) for a, b in zip(alone[6:], again, strict=True))
    assert capfd.readouterr().err.count("train-000001.tar is missing") == 1


def test_when_nothing_can_be_read_skipping_ends(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", 6)
    for name in ("train-000000.tar", "train-000001.tar"):
        Path(folder, name).unlink()
    with pytest.raises(DatasetError, match=r"no sample can be read: .*\.tar is missing"):
        stream_of(folder, skip_bad=True)[0]


def test_a_shard_that_vanishes_while_it_is_read_is_missing(damaged: Path) -> None:
    items = stream_of(str(damaged), augment=False)
    assert items.pair(3).index == 3
    missing(damaged)
    with pytest.raises(DatasetError, match=r"train-000001.tar is missing"):
        items.pair(4)


def test_a_store_that_fails_is_no_bad_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory = fsspec.filesystem("memory")
    items = stream_of(uploaded(made(tmp_path / "a", 3), "memory://failing/pairs"), skip_bad=True)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(type(memory), "get_file", refused)
    for workers in (0, 1):
        items.workers = workers
        with pytest.raises(StorageError, match="not yours"):
            list(items.batches(1, 0, 3))
    memory.rm("/failing", recursive=True)


def test_a_process_ends_though_it_still_holds_batches(tmp_path: Path) -> None:
    # Its loaders pass over the SIGTERM with which Python ends them.
    folder = made(tmp_path / "a", 6)
    code = f"""
from segswap.batches.stream import PairStream
stream = PairStream([{folder!r}], "train", size=32, stride=8, workers=2)
for batch in (batches := stream.batches(2, 0, 1000)):
    raise ValueError("from the trainer")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("from the trainer"), done.stderr


@pytest.mark.slow
def test_spawned_loaders_work_too(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", 4)
    code = f"""
import torch.multiprocessing as mp
from segswap.batches.stream import PairStream

if __name__ == "__main__":
    mp.set_start_method("spawn")
    stream = PairStream([{folder!r}], "train", size=96, stride=8, workers=1)
    print(sum(batch.pairs for batch in stream.batches(2, 0, 2)))
"""
    path = tmp_path / "spawned.py"
    path.write_text(code)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300)
    assert done.stdout == "4\n", done.stderr
