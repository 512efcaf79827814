"""segswap-check: a dataset as it was made is clean; every kind of damage is named by its check."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st
from made_pairs import pasted_pair
from PIL import Image

from pipelines.check.config import CheckConfig
from pipelines.check.findings import CHECKS
from pipelines.check.job import check
from pipelines.check.pixels import Registrations
from pipelines.check.samples import (
    check_sample,
    grid_contradictions,
    map_against_masks,
    read_record,
)
from segswap import geometry
from segswap.data.manifest import DatasetError
from segswap.data.shards import encode_pair
from segswap.data.truth import stride_grids
from segswap.files.hashes import file_hash

Members = dict[str, bytes]  # of a shard: name to content
SHARD = "train-000001.tar"
SIZE = 200


@pytest.fixture(scope="module")
def clean(
    generate: Run, shapes: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """8 train and 4 val pairs in shards of 4, pasted, with grids."""
    out = tmp_path_factory.mktemp("clean") / "dataset"
    generate(
        out, "--annotations", shapes[0], "--images", shapes[1], "--pairs", 8, "--val-pairs", 4,
        "--val-share", 0.4, "--shard-pairs", 4, "--size", SIZE, "--blend", "paste",
        "--grid-stride", 16, "--workers=0",
    )  # fmt: skip
    return out


@pytest.fixture
def damaged(clean: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(clean, tmp_path / "dataset"))


def found(dataset: Path | str, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """The problems that a check finds, by check; those without problems are left out."""
    report = tmp_path / "report.json"
    status = check(CheckConfig(str(dataset), json=str(report)))
    content = json.loads(report.read_text())
    assert list(content["checks"]) == list(CHECKS)
    problems = {name: row["found"] for name, row in content["checks"].items() if row["problems"]}
    assert content["clean"] is (not problems)
    assert status == (1 if problems else 0)
    return problems


def read(shard: Path) -> Members:
    with tarfile.open(shard) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def write(shard: Path, members: list[tuple[str, bytes]]) -> None:
    """Put members into a shard, and list it as it is now."""
    with tarfile.open(shard, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    list_again(shard)


def list_again(shard: Path) -> None:
    """Make manifest and metadata tell a shard's true size and hash."""
    for name in ("segswap.json", "croissant.json"):
        path = shard.parent / name
        content = json.loads(path.read_text())
        entries = [e for s in content.get("splits", {}).values() for e in s["shards"]]
        for entry in [*entries, *content.get("distribution", [])]:
            if entry.get("name") == shard.name:
                entry["sha256"] = file_hash(shard)
                if "bytes" in entry:
                    entry["bytes"] = shard.stat().st_size
        path.write_text(json.dumps(content))


def edit(dataset: Path, change: Callable[[Members], Members | None], shard: str = SHARD) -> None:
    """Change the members of a shard."""
    members = read(dataset / shard)
    members = change(members) or members
    write(dataset / shard, list(members.items()))


def edit_record(dataset: Path, change: Callable[[dict[str, Any]], Any], key: int = 5) -> None:
    """Change one KEY.json."""

    def changed(members: Members) -> None:
        record = json.loads(members[f"{key:09d}.json"])
        record = change(record) or record
        members[f"{key:09d}.json"] = json.dumps(record).encode()

    edit(dataset, changed)


def edit_manifest(dataset: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = dataset / "segswap.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(change(manifest) or manifest))


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def mask(members: Members, name: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(members[name])))


# --- clean datasets ----------------------------------------------------------------------------


def test_a_dataset_as_it_was_made_is_clean(
    script: Callable[[str], str], clean: Path, tmp_path: Path
) -> None:
    """The command line says what it looked at, and writes the same as JSON."""
    done = subprocess.run(
        [script("segswap-check"), str(clean), "--json", str(tmp_path / "report.json")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{clean}: clean\n")
    rows = {row["unit"]: row for row in json.loads((tmp_path / "report.json").read_text())[
        "checks"].values()}  # fmt: skip
    looked = {unit: row["looked_at"] for unit, row in rows.items()}
    assert looked["shards"] == 3
    assert looked["pairs"] == 12
    assert looked["masks"] == looked["grids"] == 24
    assert looked["images"] > 1
    error = json.loads((tmp_path / "report.json").read_text())["position_error"]
    assert error["pairs"] == 12
    assert error["measured"] > 5
    assert error["median_px"] < 0.1
    assert error["max_px"] < 0.5


def test_styled_and_blended_pairs_of_photographs_are_clean(
    photos_dataset: Path, tmp_path: Path
) -> None:
    assert found(photos_dataset, tmp_path) == {}


def test_every_way_of_blending_real_images_is_clean(
    generate: Run, coco: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "dataset"
    generate(
        out, *coco, "--pairs", 40, "--workers=0", "--blend", "poisson,poisson-mixed,feather,paste"
    )
    assert found(out, tmp_path) == {}
    assert json.loads((tmp_path / "report.json").read_text())["position_error"]["measured"] > 25


def test_another_programs_shards_are_clean(damaged: Path, tmp_path: Path) -> None:
    """Other member orders, tar headers and further keys are as good."""

    def extend(record: dict[str, Any]) -> None:
        record["weather"] = {"sky": "clear"}
        record["objects"][0]["score"] = 0.5
        record["objects"][0]["target_from_source"] = [
            [-7 * value for value in row] for row in record["objects"][0]["target_from_source"]
        ]

    edit_record(damaged, extend)
    members = read(damaged / SHARD)
    with tarfile.open(damaged / SHARD, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(members):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(members[name]), 1.75e9 + 0.5, "ünal"
            tar.addfile(member, io.BytesIO(members[name]))
    list_again(damaged / SHARD)
    assert found(damaged, tmp_path) == {}


def test_how_many_pairs_are_registered(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wanted, done in ((0, 0), (5, 5), (1000, 12)):
        report = tmp_path / "report.json"
        assert check(CheckConfig(str(clean), str(report), register=wanted)) == 0
        assert json.loads(report.read_text())["position_error"]["pairs"] == done
        assert f"in {done} pairs" in capsys.readouterr().out


# --- damage to files ---------------------------------------------------------------------------


def truncated(dataset: Path) -> None:
    shard = dataset / SHARD
    shard.write_bytes(shard.read_bytes()[:50_000])


def flipped_byte(dataset: Path) -> None:
    data = bytearray((dataset / SHARD).read_bytes())
    at = data.index(b"\xff\xda") + 2000  # inside the first picture's data
    data[at] ^= 0x10
    (dataset / SHARD).write_bytes(data)


def damaged_header(dataset: Path) -> None:
    with tarfile.open(dataset / SHARD) as tar:
        start = tar.getmembers()[9].offset
    data = bytearray((dataset / SHARD).read_bytes())
    data[start + 150] ^= 0x01
    (dataset / SHARD).write_bytes(data)
    list_again(dataset / SHARD)


def wrong_hash(dataset: Path) -> None:
    edit_manifest(
        dataset, lambda m: m["splits"]["train"]["shards"][1].update(sha256="0" * 64)
    )  # fmt: skip


def missing_shard(dataset: Path) -> None:
    (dataset / SHARD).unlink()


def extra_shard(dataset: Path) -> None:
    shutil.copy(dataset / SHARD, dataset / "train-000002.tar")


def leftovers(dataset: Path) -> None:
    (dataset / ".train-000000.tar.host.123.tmp").write_bytes(b"half")


def no_card(dataset: Path) -> None:
    (dataset / "README.md").unlink()


def broken_metadata(dataset: Path) -> None:
    (dataset / "croissant.json").write_text("{")


def empty_shard(dataset: Path) -> None:
    (dataset / SHARD).write_bytes(b"")


def foreign_tar(dataset: Path) -> None:
    write(dataset / SHARD, [("photos/../../etc/notes.txt", b"hello"), ("\x1b[31m.jpg", b"")])


def not_a_tar(dataset: Path) -> None:
    (dataset / SHARD).write_bytes(b"not a tar at all, but some text. " * 100)


@pytest.mark.parametrize(
    ("damage", "checks", "words"),
    [
        (truncated, {"shards", "samples"}, "50000 bytes"),
        (flipped_byte, {"shards"}, "sha256"),
        (damaged_header, {"shards", "samples"}, "damaged or cut short at byte"),
        (wrong_hash, {"shards", "files"}, "0000000000, as listed"),
        (missing_shard, {"shards", "files", "samples"}, "is missing"),
        (extra_shard, {"files"}, "train-000002.tar"),
        (leftovers, {"files"}, ".tmp"),
        (no_card, {"files"}, "README.md"),
        (broken_metadata, {"files"}, "cannot be read"),
        (empty_shard, {"shards", "samples"}, "0 bytes"),
        (foreign_tar, {"samples"}, "notes.txt"),
        (not_a_tar, {"shards", "samples"}, "cannot be read"),
    ],
)
def test_damaged_files(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None], checks: set[str], words: str,
) -> None:  # fmt: skip
    damage(damaged)
    problems = found(damaged, tmp_path)
    assert set(problems) == checks
    printed = capsys.readouterr().out
    assert words in printed
    assert "\x1b" not in printed


# --- damage to samples -------------------------------------------------------------------------


def missing_member(dataset: Path) -> None:
    edit(dataset, lambda m: {k: v for k, v in m.items() if k != "000000006.target_mask.png"})


def missing_sample(dataset: Path) -> None:
    edit(dataset, lambda m: {k: v for k, v in m.items() if not k.startswith("000000006.")})


def duplicate_key(dataset: Path) -> None:
    members = list(read(dataset / SHARD).items())
    again = [item for item in members if item[0].startswith("000000004.")]
    write(dataset / SHARD, members + again)


def member_twice(dataset: Path) -> None:
    members = list(read(dataset / SHARD).items())
    write(dataset / SHARD, [members[0], *members])


def one_grid(dataset: Path) -> None:
    edit(dataset, lambda m: {k: v for k, v in m.items() if k != "000000005.source_grid.npy"})


def bad_json(dataset: Path) -> None:
    edit(dataset, lambda m: m.update({"000000005.json": b'{"format": 1,'}))


def deep_json(dataset: Path) -> None:
    edit(dataset, lambda m: m.update({"000000005.json": b"[" * 100_000}))


def text_as_number(dataset: Path) -> None:
    edit_record(dataset, lambda r: r.update(width="200"))


def no_objects(dataset: Path) -> None:
    edit_record(dataset, lambda r: r.pop("objects") and None)


def another_index(dataset: Path) -> None:
    edit_record(dataset, lambda r: r.update(index=50))


def style_without_image(dataset: Path) -> None:
    edit_record(dataset, lambda r: r["styles"].update(source={"method": "adain"}))


def endless_matrix(dataset: Path) -> None:
    edit_record(
        dataset, lambda r: r["objects"][0]["target_from_source"][0].__setitem__(2, float("nan"))
    )


def matrix_in_words(dataset: Path) -> None:
    rows = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]]
    edit_record(dataset, lambda r: r["objects"][0].update(target_from_source=rows))


def flat_matrix(dataset: Path) -> None:
    edit_record(
        dataset,
        lambda r: r["objects"][0].update(target_from_source=[[1, 2, 3], [2, 4, 6], [0, 0, 1]]),
    )


def shifted_matrix(dataset: Path) -> None:
    """By two pixels along x."""

    def shift(record: dict[str, Any]) -> None:
        for item in record["objects"]:
            moved = geometry.translation(2 / SIZE, 0) @ np.array(item["target_from_source"])
            item["target_from_source"] = moved.tolist()

    for key in (4, 5, 6, 7):
        edit_record(dataset, shift, key)
    edit(dataset, without_grids)


def without_grids(members: Members) -> Members:
    return {name: data for name, data in members.items() if not name.endswith(".npy")}


def shifted_everything_but_pixels(dataset: Path) -> None:
    """Matrices and target masks agree with each other, and not with the images."""
    shifted_matrix(dataset)

    def shift(members: Members) -> None:
        for name in members:
            if name.endswith("target_mask.png"):
                members[name] = png(np.roll(mask(members, name), 2, axis=1))

    edit(dataset, shift)


def another_target(dataset: Path) -> None:
    """Each pair of the shard has the next one's target image."""

    def exchange(members: Members) -> None:
        names = [f"{key:09d}.target.jpg" for key in (4, 5, 6, 7)]
        images = [members[name] for name in names]
        members.update(zip(names, [*images[1:], images[0]], strict=True))

    edit(dataset, exchange)


def swapped_masks(dataset: Path) -> None:
    names = [f"000000005.{side}_mask.png" for side in ("source", "target")]

    def swap(members: Members) -> Members:
        first, second = (members[name] for name in names)
        return without_grids({**members, names[0]: second, names[1]: first})

    edit(dataset, swap)


def label_of_no_object(dataset: Path) -> None:
    def add(members: Members) -> None:
        labels = mask(members, "000000005.source_mask.png")
        labels[0, 0] = 9
        members["000000005.source_mask.png"] = png(labels)

    edit(dataset, lambda m: add(m) or without_grids(m))


def smaller_image(dataset: Path) -> None:
    def shrink(members: Members) -> None:
        image = Image.open(io.BytesIO(members["000000005.source.jpg"])).resize((100, 100))
        file = io.BytesIO()
        image.save(file, "JPEG")
        members["000000005.source.jpg"] = file.getvalue()

    edit(dataset, shrink)


def cut_image(dataset: Path) -> None:
    edit(dataset, lambda m: m.update({"000000005.target.jpg": m["000000005.target.jpg"][:3000]}))


def coloured_mask(dataset: Path) -> None:
    def colour(members: Members) -> None:
        labels = mask(members, "000000005.source_mask.png")
        members["000000005.source_mask.png"] = png(np.stack([labels] * 3, axis=-1))

    edit(dataset, colour)


def image_that_is_none(dataset: Path) -> None:
    edit(dataset, lambda m: m.update({"000000005.source.jpg": b"%!PS-Adobe-3.0"}))


def changed_grid(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(dataset: Path) -> None:
        def edited(members: Members) -> None:
            name = "000000005.source_grid.npy"
            file = io.BytesIO()
            np.save(file, change(np.load(io.BytesIO(members[name]))))
            members[name] = file.getvalue()

        edit(dataset, edited)

    return damage


def pickled_grid(dataset: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"code": 1}], object), allow_pickle=True)
    edit(dataset, lambda m: m.update({"000000005.source_grid.npy": file.getvalue()}))


def image_in_both_splits(dataset: Path) -> None:
    used = json.loads(read(dataset / "val-000000.tar")["000000001.json"])["background"]["image"]
    edit_record(dataset, lambda r: r["background"].update(image=used))


@pytest.mark.parametrize(
    ("damage", "checks", "words"),
    [
        (missing_member, {"samples"}, "no 000000006.target_mask.png"),
        (missing_sample, {"samples"}, "the key 000000007; expected 000000006"),
        (duplicate_key, {"samples"}, "the key 000000004 once more"),
        (member_twice, {"samples"}, "000000004.source.jpg twice"),
        (one_grid, {"samples"}, "a grid of one side only"),
        (bad_json, {"records"}, "JSON that cannot be read"),
        (deep_json, {"records"}, "JSON that cannot be read"),
        (text_as_number, {"records"}, "width is text; expected an integer"),
        (no_objects, {"records"}, "has no objects; expected a list"),
        (another_index, {"records"}, "index 50; expected 5"),
        (style_without_image, {"records"}, "source_styled.jpg is missing"),
        (endless_matrix, {"records"}, "finite numbers, invertible"),
        (flat_matrix, {"records"}, "finite numbers, invertible"),
        (matrix_in_words, {"records"}, "finite numbers, invertible"),
        (shifted_matrix, {"map and masks", "map and pixels"}, "px off the map"),
        (shifted_everything_but_pixels, {"map and pixels"}, "px off the map"),
        (another_target, {"map and pixels"}, "do not agree along the map"),
        (
            swapped_masks,
            {"map and masks", "map and pixels"},
            "source mask lie outside the target mask",
        ),
        (label_of_no_object, {"labels"}, "holds labels"),
        (smaller_image, {"images"}, "source.jpg is 100 x 100; expected 200 x 200"),
        (cut_image, {"images"}, "target.jpg cannot be used"),
        (coloured_mask, {"images"}, "source_mask.png cannot be used"),
        (image_that_is_none, {"images"}, "source.jpg cannot be used"),
        (changed_grid(lambda g: g[:2]), {"grids"}, "expected float32 (3, rows, columns)"),
        (changed_grid(lambda g: g.astype(np.float64)), {"grids"}, "expected float32"),
        (changed_grid(lambda g: g + 0.5), {"grids"}, "outside of [0, 1]"),
        (changed_grid(lambda g: np.stack([g[1], g[0], g[2]])), {"grids"}, "positions of object"),
        (changed_grid(lambda g: g * [[[1]], [[1]], [[0.9]]]), {"grids"}, "expected float32"),
        (changed_grid(lambda g: np.stack([*g[:2], g[2].T.copy()])), {"grids"}, "a mask that is"),
        (pickled_grid, {"grids"}, "cannot be read"),
        (image_in_both_splits, {"splits"}, "splits that have no image in common"),
    ],
)
def test_damaged_samples(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None], checks: set[str], words: str,
) -> None:  # fmt: skip
    """Hashes are right throughout: what is wrong is in the samples."""
    damage(damaged)
    problems = found(damaged, tmp_path)
    assert set(problems) == checks
    assert words in capsys.readouterr().out
    named = {problem["file"] for rows in problems.values() for problem in rows}
    assert named <= {SHARD, "val-000000.tar", "all shards"}
    assert named & {SHARD, "val-000000.tar"}


# --- the manifest ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (lambda m: m["splits"]["train"].update(pairs=9), {"manifest"}),
        (lambda m: m["splits"]["train"]["shards"][1].update(pairs=3), {"manifest", "samples"}),
        (
            lambda m: m["splits"]["train"]["shards"][1].update(name="../x.tar"),
            {"manifest", "files"},
        ),
        (lambda m: m["splits"]["train"]["shards"].reverse(), {"manifest", "samples"}),
        (lambda m: m["splits"]["val"].update(shards="none"), {"manifest", "files"}),
        (lambda m: m["splits"]["train"]["shards"][0].pop("bytes") and None, {"manifest", "files"}),
        (lambda m: m["splits"]["train"]["shards"][1].update(pairs=-4), {"manifest", "files"}),
        (lambda m: m.pop("seed") and None, {"manifest"}),
        (lambda m: m.update(inputs=[{"name": 1}], config=None), {"manifest"}),
    ],
)
def test_contradicting_manifests(
    damaged: Path, tmp_path: Path, change: Callable[[Any], Any], checks: set[str]
) -> None:
    edit_manifest(damaged, change)
    assert set(found(damaged, tmp_path)) >= checks
    assert set(found(damaged, tmp_path)) <= checks | {"samples", "files"}


def test_a_dataset_in_a_store(damaged: Path, tmp_path: Path) -> None:
    """At a URL the same is found as in a folder."""
    store = fsspec.filesystem("memory")
    for name, expected in (("whole", set()), ("cut", {"shards", "samples"})):
        if expected:
            truncated(damaged)
        store.put(str(damaged), f"/{name}", recursive=True)
        assert set(found(f"memory://{name}", tmp_path)) == expected


def test_the_exit_status_tells_problems(
    script: Callable[[str], str], damaged: Path, tmp_path: Path
) -> None:
    truncated(damaged)
    done = subprocess.run(
        [script("segswap-check"), str(damaged)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert SHARD in done.stdout
    assert "problems\n" in done.stdout
    assert "Traceback" not in done.stderr


def test_no_dataset_is_an_error(
    script: Callable[[str], str], damaged: Path, tmp_path: Path
) -> None:
    """None, an unfinished one, another format: a message and status 1."""

    def message(dataset: Path, *flags: str) -> str:
        done = subprocess.run(
            [script("segswap-check"), str(dataset), *flags], capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ")
        return done.stderr

    assert "no finished dataset" in message(tmp_path / "nothing")
    assert "no folder" in message(damaged, "--json", str(tmp_path / "no" / "such.json"))
    edit_manifest(damaged, lambda m: m.update(format=2))
    assert "format 2" in message(damaged)
    for content in ('{"format": 1,', "[]", '{"format": 1, "splits": []}'):
        (damaged / "segswap.json").write_text(content)
        with pytest.raises(DatasetError):
            check(CheckConfig(str(damaged)))
    (damaged / "segswap.json").unlink()
    assert "no finished dataset" in message(damaged)


# --- properties --------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_as_a_record(data: bytes) -> None:
    record, wrong = read_record(data)
    assert record == {}
    assert wrong


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.data())
def test_any_value_anywhere_in_a_record(data: st.DataObject) -> None:
    """Replaced by whatever JSON allows, a part of a record never ends a check."""
    members = encode_pair(pasted_pair())
    record = json.loads(members["000000000.json"])
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    members["000000000.json"] = json.dumps(record).encode()
    said: list[str] = []
    parts = {name.partition(".")[2]: content for name, content in members.items()}
    sample = check_sample("000000000", parts, None, lambda check, *_: said.append(check))
    Registrations().add(parts, sample)
    assert set(said) <= set(CHECKS)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=3, max_size=3))
def test_any_matrix(rows: list[list[float]]) -> None:
    """Whatever a matrix does to the plane, it is looked at to the end."""
    members = encode_pair(pasted_pair())
    record = json.loads(members["000000000.json"])
    record["objects"][0]["target_from_source"] = rows
    members["000000000.json"] = json.dumps(record).encode()
    parts = {name.partition(".")[2]: content for name, content in members.items()}
    said: list[str] = []
    sample = check_sample("000000000", parts, None, lambda check, *_: said.append(check))
    assert {"records", "map and masks"} & set(said)
    Registrations().add(parts, sample)


@given(
    angle=st.floats(-180, 180), zoom=st.floats(0.4, 1.3), shift=st.floats(2.5, 6),
    direction=st.floats(0, 2 * np.pi),
)  # fmt: skip
def test_masks_tell_a_map_that_is_pixels_off(
    angle: float, zoom: float, shift: float, direction: float
) -> None:
    """The true map is fine however it turns and scales; moved by over two pixels it is not."""
    matrix = (
        geometry.translation(0.5, 0.5) @ geometry.rotation(angle) @ geometry.scaling(zoom, zoom)
        @ geometry.translation(-0.5, -0.5)
    )  # fmt: skip
    pair = pasted_pair(size=128, matrix=matrix)
    masks = {"source": pair.source_mask, "target": pair.target_mask}
    assert list(map_against_masks(masks, {1: matrix})) == []
    away = geometry.translation(*(shift / 128 * np.array([np.cos(direction), np.sin(direction)])))
    assert len(list(map_against_masks(masks, {1: away @ matrix}))) == 2


@given(stride=st.integers(5, 40), size=st.integers(64, 100))
def test_grids_of_any_stride_are_right(stride: int, size: int) -> None:
    pair = pasted_pair(size=size)
    matrix = pair.objects[0].target_from_source
    for grid, labels, carry in zip(
        stride_grids(pair, stride), (pair.source_mask, pair.target_mask),
        (matrix, np.linalg.inv(matrix)), strict=True,
    ):  # fmt: skip
        assert list(grid_contradictions(grid, labels, {1: carry}, stride)) == []
        assert list(grid_contradictions(grid, labels, {1: carry}, stride + 41)) != []
