"""Datasets of strangers: what is wrong in a manifest or a record is named by its file and key."""

import copy
import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from made_pairs import pasted_pair, write_dataset

import segswap
from segswap.data.manifest import DatasetError
from segswap.data.shards import Shard, encode_pair

RECORD = json.loads(encode_pair(pasted_pair(0))["000000000.json"])


def shard_of(folder: Path, record: Any) -> Path:
    """A shard of one pair with another record."""
    members = encode_pair(pasted_pair(0))
    text = record if isinstance(record, str) else json.dumps(record)
    members["000000000.json"] = text.encode()
    with tarfile.open(folder / "train-000000.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    return folder / "train-000000.tar"


def put(path: str, value: Any) -> Callable[[Any], None]:
    *way, last = path.split(".")

    def change(record: Any) -> None:
        for key in way:
            record = record[int(key) if key.isdigit() else key]
        record[last] = value

    return change


def test_the_record_is_read_as_it_is(tmp_path: Path) -> None:
    assert Shard.open(shard_of(tmp_path, RECORD)).read(0).index == 0
    more = RECORD | {"further": {"a": None}}
    more["objects"] = [{**item, "segment": {"annotation": 1.5}} for item in RECORD["objects"]]
    assert Shard.open(shard_of(tmp_path, more)).read(0).objects[0].segment == {"annotation": 1.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("objects.0.segment", None), r"objects\[0\]'s segment is null; expected an object"),
        (put("objects.0.segment", []), r"objects\[0\]'s segment is a list"),
        (put("objects.0.segment.image", 5), r"objects\[0\].segment's image is an integer"),
        (put("objects.0.segment.sha256", ["a"]), r"segment's sha256 is a list"),
        (put("objects.0.label", "1"), r"objects\[0\]'s label is text; expected an integer"),
        (put("objects.0.label", 1.0), r"objects\[0\]'s label is a number"),
        (put("objects.0.label", 2**70), "labels"),
        (put("objects.0.category", 3), r"category is an integer; expected text or null"),
        (put("objects.0.blend", None), "blend is null"),
        (put("objects.0.target_from_source", None), "target_from_source is null"),
        (put("objects.0.target_from_source", [[1, 0], [0, 1, 2]]), "is not 3 rows of 3 numbers"),
        (put("objects.0.target_from_source", [["a"] * 3] * 3), "is not 3 rows of 3 numbers"),
        (put("objects.0.target_from_source", [[None] * 3] * 3), "invertible 3x3 matrix"),
        (put("objects.0.target_from_source", [[10**400, 0, 0]] * 3), "is not 3 rows"),
        (put("objects.0.target_from_source", [1, 2, 3]), "invertible 3x3 matrix"),
        (put("objects", None), "objects is null; expected a list"),
        (put("objects", {"0": {}}), "objects is an object; expected a list"),
        (put("objects", [None]), r"objects\[0\] is null; expected an object"),
        (put("background", None), "background is null"),
        (put("background", {"image": {}}), "background's image is an object"),
        (put("styles", None), "styles is null"),
        (put("styles.source", "fda"), "styles's source is text; expected an object or null"),
        (put("rng", [0]), "rng has 1 numbers; expected 2"),
        (put("rng", [0, None]), r"rng\[1\] is null; expected an integer"),
        (put("rng", 3), "rng is an integer"), (put("index", "0"), "index is text"),
        (put("width", None), "width is null"), (put("height", 2.5), "height is a number"),
        (put("format", "1"), "has format '1'"),
    ],
)  # fmt: skip
def test_a_record_of_other_types_is_named(
    change: Callable[[Any], None], said: str, tmp_path: Path
) -> None:
    record = copy.deepcopy(RECORD)
    change(record)
    with pytest.raises(DatasetError, match=rf"train-000000\.tar, sample 0: .*{said}"):
        Shard.open(shard_of(tmp_path, record)).read(0)


@pytest.mark.parametrize("key", [key for key in RECORD if key != "format"])
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    record = {name: value for name, value in RECORD.items() if name != key}
    with pytest.raises(DatasetError, match=rf"sample 0: json has no {key}; expected"):
        Shard.open(shard_of(tmp_path, record)).read(0)


@pytest.mark.parametrize("text", ["", "nul", "[" * 100_000, '"a"', "\x00", "[" + "9" * 5000 + "]"])
def test_what_is_no_json_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train-000000\.tar, sample 0: (json|a sample) is"):
        Shard.open(shard_of(tmp_path, text)).read(0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("splits", None), "splits is null; expected an object"),
        (put("splits.train", None), "train is null; expected an object"),
        (put("splits.train.shards", None), "train's shards is null; expected a list"),
        (put("splits.train.shards", [5]), r"train.shards\[0\] is an integer"),
        (put("splits.train.shards.0.name", None), r"shards\[0\]'s name is null; expected text"),
        (put("splits.train.shards.0.name", "../train-000000.tar"), "a shard outside of it"),
        (put("splits.train.shards.0.name", "/etc/passwd"), "a shard outside of it"),
        (put("splits.train.shards.0.pairs", True), r"shards\[0\]'s pairs is true or false"),
        (put("splits.train.shards.0.pairs", -3), "lists -3 pairs"),
        (put("splits.train.shards.0.pairs", 2**70), "expected 0 to 999999999"),
        (put("splits.train.shards.0.bytes", "9"), "bytes is text"),
        (put("splits.train.shards.0.sha256", 5), "sha256 is an integer"),
        (put("config", 5), "config is an integer"), (put("inputs", {}), "inputs is an object"),
        (put("skipped", None), "skipped is null"), (put("inputs", [5]), r"inputs\[0\] is an int"),
        (put("rejected", []), "rejected is a list"),
    ],
)  # fmt: skip
def test_a_manifest_of_other_types_is_named(
    change: Callable[[Any], None], said: str, tmp_path: Path
) -> None:
    dataset = Path(write_dataset(tmp_path / "pairs", [pasted_pair(0)], []))
    manifest = json.loads((dataset / "segswap.json").read_text())
    change(manifest)
    (dataset / "segswap.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=said) as caught:
        segswap.open_dataset(dataset)
    assert str(dataset) in str(caught.value)
