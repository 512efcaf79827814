"""Pairs validate themselves, go to disk and come back; foreign and damaged shards are refused."""

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segswap.data.manifest import MANIFEST, DatasetError, datasets_with, read_manifest, split_shards
from segswap.data.pair import Pair, PairObject
from segswap.data.shards import Shard, decode_pair, encode_pair, read_pairs, write_shard
from segswap.files.hashes import file_hash

texts = st.text(max_size=20)


def object_of(label: int, matrix: np.ndarray | None = None) -> PairObject:
    shear = np.array([[0.5, 0.1, 0.2], [0.0, 0.7, 0.1], [0.0, 0.0, 1.0]])
    return PairObject(
        label, shear if matrix is None else matrix, "dog", {"image": "a.jpg"}, "paste"
    )


def pair_of(
    index: int = 0, height: int = 40, width: int = 48, labels: tuple[int, ...] = (1,)
) -> Pair:
    rng = np.random.default_rng(index)
    ramp = np.linspace(30, 220, width).astype(np.uint8)
    image = np.repeat(np.tile(ramp, (height, 1))[..., None], 3, axis=-1)
    mask = rng.choice([0, *labels], (height, width)).astype(np.uint8)
    return Pair(
        index, image, image[:, ::-1].copy(), mask, np.zeros_like(mask),
        tuple(object_of(label) for label in labels), {"dataset": "d", "image": "b.jpg"},
        rng=(0, index),
    )  # fmt: skip


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    labels = tuple(draw(st.sets(st.integers(1, 255), min_size=1, max_size=4)))
    pair = pair_of(draw(st.integers(0, 999_999_999)), *draw(st.tuples(*[st.integers(32, 70)] * 2)),
                   labels)  # fmt: skip
    numbers = st.floats(-4, 4, allow_nan=False)
    objects = tuple(
        PairObject(
            label,
            np.array([[draw(numbers) for _ in range(3)] for _ in range(2)] + [[0, 0, 1]])
            + np.diag([9, 9, 0]),
            draw(st.none() | texts), {"image": draw(texts), "annotation": draw(st.integers())},
            draw(st.sampled_from(["poisson", "paste"])),
        )
        for label in labels
    )  # fmt: skip
    style = {"method": "histogram", "alpha": 0.25, "image": draw(texts)}
    styled = pair.target if draw(st.booleans()) else None
    return replace(
        pair, objects=objects, target_styled=styled,
        styles={"source": None, "target": style if styled is not None else None},
    )  # fmt: skip


def assert_equal(pair: Pair, other: Pair) -> None:
    """Equal up to JPEG's losses, which are small on a smooth image."""
    for name in ("index", "background", "styles", "rng", "width", "height"):
        assert getattr(pair, name) == getattr(other, name)
    for name in ("source_mask", "target_mask"):
        np.testing.assert_array_equal(getattr(pair, name), getattr(other, name))
    for name in ("source", "target", "source_styled", "target_styled"):
        ours, theirs = getattr(pair, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert np.abs(ours.astype(int) - theirs).mean() < 2
    for item, again in zip(pair.objects, other.objects, strict=True):
        np.testing.assert_array_equal(item.target_from_source, again.target_from_source)
        assert replace(item, target_from_source=0) == replace(again, target_from_source=0)


@given(pairs())
def test_pair_to_members_to_pair(pair: Pair) -> None:
    members = encode_pair(pair)
    key = f"{pair.index:09d}"
    assert all(name.startswith(f"{key}.") for name in members)
    parts = {name.removeprefix(f"{key}."): data for name, data in members.items()}
    assert_equal(decode_pair(parts), pair)


def test_pairs_to_shard_to_pairs(tmp_path: Path) -> None:
    made = [pair_of(index, labels=(1, 2)) for index in range(5)]
    entry = write_shard(tmp_path / "train-000000.tar", made)
    path = tmp_path / "train-000000.tar"
    assert entry == {
        "name": "train-000000.tar", "pairs": 5,
        "bytes": path.stat().st_size, "sha256": file_hash(path),
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["train-000000.tar"]
    shard = Shard.open(path)
    assert len(shard.samples) == 5
    for position, pair in enumerate(made):
        assert_equal(shard.read(position), pair)


def test_equal_pairs_give_equal_bytes(tmp_path: Path) -> None:
    hashes = {
        write_shard(tmp_path / f"train-00000{i}.tar", [pair_of(3), pair_of(4)])["sha256"]
        for i in range(2)
    }
    assert len(hashes) == 1


def test_headers_hold_no_time_and_no_owner(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", [pair_of()])
    with tarfile.open(tmp_path / "s.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert (member.uname, member.gname) == ("", "")


def test_a_failing_generator_leaves_nothing(tmp_path: Path) -> None:
    def failing():
        yield pair_of()
        raise RuntimeError("no further pair")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "train-000000.tar", failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros((40, 47, 3), np.uint8)}, r"target is uint8 \(40, 47, 3\)"),
        ({"source": np.zeros((40, 48, 3))}, "source is float64"),
        ({"target_styled": np.zeros((9, 9, 3), np.uint8)}, "target_styled"),
        ({"target_mask": np.zeros((40, 48), bool)}, "target_mask is bool"),
        ({"source_mask": np.full((40, 48), 7, np.uint8)}, r"labels \[7\] of no object"),
        ({"objects": (object_of(1), object_of(1))}, "distinct"),
        ({"objects": (object_of(1), object_of(0))}, "1 to 255"),
        ({"objects": (object_of(1, np.zeros((3, 3))),)}, "invertible"),
        ({"objects": (object_of(1, np.full((3, 3), np.nan)),)}, "invertible"),
        ({"objects": (object_of(1, np.eye(2)),)}, "invertible"),
    ],
)
def test_pairs_refuse_what_contradicts_itself(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(pair_of(), **change)


def test_points_of_an_unknown_object() -> None:
    with pytest.raises(ValueError, match="no object 3"):
        pair_of().to_target(np.zeros((1, 2)), 3)


# --- foreign and damaged shards ----------------------------------------------------------------


def with_members(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../000000000.json", "a/000000000.json", "000000000.pkl", "000000000.py",
        "000000000.source.jpg/x", "00000000.json", "\u0660" * 9 + ".json", "000000000.json\n", "x",
    ],
)  # fmt: skip
def test_members_of_other_names_are_refused(tmp_path: Path, name: str) -> None:
    path = with_members(tmp_path / "s.tar", {**encode_pair(pair_of()), name: b"x"})
    with pytest.raises(DatasetError, match=r"s\.tar: unexpected member"):
        Shard.open(path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    name = "000000000.source.jpg"
    path = with_members(tmp_path / "s.tar", {name: link(name, kind)})
    with pytest.raises(DatasetError, match="unexpected member"):
        Shard.open(path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train-000007\.tar is missing"):
        Shard.open(tmp_path / "train-000007.tar")


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_text("no tar" * 999)
    with pytest.raises(DatasetError, match=r"s\.tar cannot be read"):
        Shard.open(tmp_path / "s.tar")


def member_starts(path: Path) -> list[int]:
    with tarfile.open(path) as tar:
        return [member.offset for member in tar]


def test_a_cut_shard_is_named_wherever_it_is_cut(tmp_path: Path) -> None:
    """Also between two members, where tarfile sees a shorter archive and says nothing."""
    write_shard(tmp_path / "s.tar", [pair_of(0), pair_of(1)])
    whole = (tmp_path / "s.tar").read_bytes()
    starts = member_starts(tmp_path / "s.tar")
    cuts = {0, 100, *starts, *(start + 512 for start in starts), *(s + 700 for s in starts)}
    for cut in sorted(cuts):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=r"cut\.tar"):
            Shard.open(tmp_path / "cut.tar")


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", [pair_of(0), pair_of(1)])
    damaged = bytearray((tmp_path / "s.tar").read_bytes())
    start = member_starts(tmp_path / "s.tar")[5]
    damaged[start : start + 200] = b"\xff" * 200
    (tmp_path / "s.tar").write_bytes(damaged)
    with pytest.raises(DatasetError, match=r"s\.tar is damaged or cut short at byte"):
        Shard.open(tmp_path / "s.tar")


def test_a_position_beyond_the_shard(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", [pair_of(0)])
    with pytest.raises(DatasetError, match=r"s\.tar holds 1 pairs"):
        Shard.open(tmp_path / "s.tar").read(1)


def changed_record(**changes: object) -> dict[str, bytes]:
    members = encode_pair(pair_of())
    record = json.loads(members["000000000.json"])
    record.update(changes)
    return {**members, "000000000.json": json.dumps(record).encode()}


def without(name: str) -> dict[str, bytes]:
    members = encode_pair(pair_of())
    del members[f"000000000.{name}"]
    return members


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def huge_png() -> bytes:
    """A PNG of one colour with 400 megapixels: small as a file, 400 MB decoded."""
    data = bytearray(png(np.zeros((64, 64), np.uint8)))
    data[16:24] = (20_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


DAMAGED: dict[str, Callable[[], dict[str, bytes]]] = {
    "no target": lambda: without("target.jpg"),
    "no mask": lambda: without("source_mask.png"),
    "no record": lambda: without("json"),
    "record is no JSON": lambda: {**encode_pair(pair_of()), "000000000.json": b"{"},
    "record is a list": lambda: {**encode_pair(pair_of()), "000000000.json": b"[]"},
    "record lacks keys": lambda: {**encode_pair(pair_of()), "000000000.json": b'{"format": 1}'},
    "objects of another kind": lambda: changed_record(objects=[3]),
    "rng too short": lambda: changed_record(rng=[]),
    "another size": lambda: changed_record(width=47),
    "no image": lambda: {**encode_pair(pair_of()), "000000000.source.jpg": b"text"},
    "mask of another size": lambda: {
        **encode_pair(pair_of()), "000000000.source_mask.png": png(np.zeros((40, 40), np.uint8))
    },
    "mask in colour": lambda: {
        **encode_pair(pair_of()), "000000000.source_mask.png": png(np.zeros((40, 48, 3), np.uint8))
    },
    "mask of 16 bits": lambda: {
        **encode_pair(pair_of()), "000000000.source_mask.png": png(np.zeros((40, 48), np.uint16))
    },
    "mask that is a bomb": lambda: {
        **encode_pair(pair_of()), "000000000.source_mask.png": huge_png()
    },
    "image that is a bomb": lambda: {
        **encode_pair(pair_of()), "000000000.target.jpg": huge_png()
    },
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_samples_are_named(tmp_path: Path, what: str) -> None:
    path = with_members(tmp_path / "s.tar", DAMAGED[what]())
    with pytest.raises(DatasetError, match=r"s\.tar, sample 0: "):
        Shard.open(path).read(0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"objects": None}, "json's objects is null; expected a list"),
     ({"objects": [3]}, r"json: objects\[0\] is an integer; expected an object"),
     ({"background": None}, "json's background is null; expected an object")],
)  # fmt: skip
def test_records_that_do_not_say_whose_the_images_are(
    changes: dict, said: str, tmp_path: Path
) -> None:
    path = with_members(tmp_path / "s.tar", changed_record(**changes))
    with pytest.raises(DatasetError, match=rf"s\.tar, sample 0: {said}"):
        Shard.open(path).read(0)


def test_a_pickled_matrix_is_no_matrix(tmp_path: Path) -> None:
    """Nothing in a sample is unpickled or executed."""
    members = changed_record(objects=[{"label": 1, "target_from_source": "__import__('os')"}])
    path = with_members(tmp_path / "s.tar", members)
    with pytest.raises(DatasetError, match="sample 0"):
        Shard.open(path).read(0)


# --- formats and manifests ---------------------------------------------------------------------


def test_a_newer_sample_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = with_members(tmp_path / "s.tar", changed_record(format=2))
    with pytest.raises(DatasetError, match="has format 2; this version of segswap reads 1"):
        Shard.open(path).read(0)


def dataset_of(folder: Path, **changes: object) -> Path:
    entry = write_shard(folder / "train-000000.tar", [pair_of(0), pair_of(1)])
    manifest = {"format": 1, "splits": {"train": {"pairs": 2, "shards": [entry]}}, **changes}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_a_newer_dataset_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has format 3; this version of segswap reads 1"):
        read_manifest(dataset_of(tmp_path, format=3))


def test_an_unfinished_dataset_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no finished dataset.*segswap-generate"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', "3"])
def test_a_broken_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DatasetError, match=r"segswap\.json"):
        read_manifest(tmp_path)


def test_a_missing_split_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no pairs in split 'val'; it has \['train'\]"):
        split_shards(dataset_of(tmp_path), "val")


@pytest.mark.parametrize("name", ["../other/train-000000.tar", "/tmp/x.tar", "pipe:cat x.tar/y"])
def test_shards_outside_the_dataset_are_refused(tmp_path: Path, name: str) -> None:
    splits = {"train": {"pairs": 2, "shards": [{"name": name, "pairs": 2}]}}
    with pytest.raises(DatasetError, match="outside"):
        split_shards(dataset_of(tmp_path, splits=splits), "train")


@pytest.mark.parametrize(
    "splits",
    [
        {"train": 3}, {"train": {"pairs": 2}}, {"train": {"pairs": 2, "shards": [7]}},
        {"train": {"pairs": 2, "shards": [{"name": "train-000000.tar", "pairs": 2}]}},
        {"train": {"pairs": 2, "shards": [
            {"name": "train-000000.tar", "pairs": "2", "bytes": 1, "sha256": ""}]}},
    ],
)  # fmt: skip
def test_a_manifest_without_usable_shards_is_named(tmp_path: Path, splits: object) -> None:
    dataset = dataset_of(tmp_path, splits=splits)
    with pytest.raises(
        DatasetError, match=r"segswap\.json: train.* expected .*generate the dataset again"
    ):
        split_shards(dataset, "train")
    with pytest.raises(DatasetError, match=r"segswap\.json: train"):
        datasets_with([str(dataset)], "train")


def test_a_store_that_is_none_is_not_taken_for_a_bad_manifest() -> None:
    with pytest.raises(ValueError, match=r"^s4://a/b/segswap\.json is no URL that can be used"):
        read_manifest("s4://a/b")


def test_read_pairs_counts(tmp_path: Path) -> None:
    assert [pair.index for pair in read_pairs(dataset_of(tmp_path), "train")] == [0, 1]
    write_shard(tmp_path / "train-000000.tar", [pair_of(0)])
    with pytest.raises(DatasetError, match=r"train-000000\.tar holds 1 pairs.*2"):
        list(read_pairs(tmp_path, "train"))
