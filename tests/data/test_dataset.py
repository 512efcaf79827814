"""segswap.open_dataset: how many pairs there are, which, and what they are made from."""

import json
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from made_pairs import pasted_pair, write_dataset

import segswap
from segswap.data.manifest import MANIFEST, DatasetError
from segswap.data.shards import encode_pair, read_pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seven train pairs in shards of 3, 3 and 1, and two val pairs."""
    pairs = [pasted_pair(index) for index in range(7)]
    return write_dataset(tmp_path_factory.mktemp("made") / "pairs", pairs, pairs[:2])


def test_it_counts_its_pairs(made: str) -> None:
    dataset = segswap.open_dataset(Path(made))
    assert len(dataset) == 9
    assert dataset.splits == {"train": 7, "val": 2}
    assert repr(dataset) == f"Dataset({made!r}, {{'train': 7, 'val': 2}})"


def test_any_pair_in_any_order(made: str) -> None:
    """Also across shards that are not equally large."""
    dataset = segswap.open_dataset(made)
    wanted = list(read_pairs(made, "train"))
    for number in (6, 0, 3, 5, 2):
        pair = dataset.pair(number)
        assert pair.index == number
        assert encode_pair(pair) == encode_pair(wanted[number])
    assert [pair.index for pair in dataset.pairs("val")] == [0, 1]
    np.testing.assert_array_equal(dataset.pair(1, "val").target, wanted[1].target)


@pytest.mark.parametrize("number", [-1, 7])
def test_a_pair_that_is_not_there(made: str, number: int) -> None:
    with pytest.raises(IndexError, match=f"no pair {number} in train; it has 0 to 6"):
        segswap.open_dataset(made).pair(number)


def test_a_split_that_is_not_there(made: str) -> None:
    dataset = segswap.open_dataset(made)
    for ask in (lambda: dataset.pair(0, "test"), lambda: dataset.pairs("test")):
        with pytest.raises(DatasetError, match=r"no pairs in split 'test'; it has \['train'"):
            ask()


def test_a_url(made: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(made, "/open_dataset", recursive=True)
    dataset = segswap.open_dataset("memory://open_dataset")
    assert dataset.splits == {"train": 7, "val": 2}
    assert dataset.pair(4).index == 4
    memory.rm("/open_dataset", recursive=True)


def test_what_is_no_dataset_is_refused_when_it_is_opened(made: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no finished dataset"):
        segswap.open_dataset(tmp_path)
    manifest = json.loads((Path(made) / MANIFEST).read_text())
    del manifest["splits"]["val"]["shards"][0]["sha256"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="has no sha256; expected text"):
        segswap.open_dataset(tmp_path)


def test_a_damaged_shard_is_named_when_it_is_read(tmp_path: Path) -> None:
    made = write_dataset(tmp_path, [pasted_pair(0), pasted_pair(1)], shard_pairs=1)
    data = bytearray((tmp_path / "train-000001.tar").read_bytes())
    data[700] ^= 0xFF
    (tmp_path / "train-000001.tar").write_bytes(data)
    dataset = segswap.open_dataset(made)
    assert dataset.pair(0).index == 0
    with pytest.raises(DatasetError, match=r"train-000001\.tar is damaged"):
        dataset.pair(1)


def test_the_facts_are_those_of_the_card(photos_dataset: Path) -> None:
    facts = segswap.open_dataset(photos_dataset).facts
    card = (photos_dataset / "README.md").read_text()
    assert facts["generator"] in card
    for split, counts in facts["splits"].items():
        row = f"| {split} | {counts['pairs']} | {counts['shards']} | {counts['bytes']} |"
        assert row in card
    assert facts["inputs"][0]["images"] == 12
    assert sum(facts["inputs"][0]["licences"].values()) == 12
    assert facts["skipped"] == 0
    assert facts["config"]["size"] == 160


def test_no_torch_is_loaded(made: str) -> None:
    code = (
        f"import sys, segswap; segswap.open_dataset({made!r}).pair(3); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'pipelines', 'generators')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=240).returncode == 0
