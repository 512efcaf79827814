"""segswap-generate as a user runs it: the same bytes always, also after kills and damage."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from conftest import Run
from runs import assert_clean, assert_same, hashes, shards, wait_for

from pipelines.command import cli
from pipelines.generation import job
from segswap.files.locks import LOCK

# --- the same bytes ----------------------------------------------------------------------------


@pytest.mark.slow
def test_two_ray_workers_make_the_same_bytes(
    flags: list[str], generate: Run, reference: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "out", *flags, "--workers", 2)
    assert_same(tmp_path / "out", reference)


def test_the_order_of_the_shards_changes_nothing(
    flags: list[str],
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def backwards(function: Callable, items: Iterable) -> Iterator:
        return map(function, reversed(list(items)))

    monkeypatch.setattr("pipelines.command.workers.run_inline", backwards)
    arguments = [str(tmp_path / "out"), *flags, "--workers=0"]
    assert job.generate(cli.parse(job.GenerateConfig, arguments)) == 0
    assert_same(tmp_path / "out", reference)


def test_another_seed_makes_other_bytes(
    flags: list[str], generate: Run, reference: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "out", *flags, "--pairs", 15, "--seed", 1, "--workers=0")
    assert hashes(tmp_path / "out")["train-000000.tar"] != hashes(reference)["train-000000.tar"]


def members(dataset: Path, split: str) -> dict[str, bytes]:
    found = {}
    for path in sorted(dataset.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def test_a_pair_does_not_depend_on_the_number_of_pairs_or_the_shard_size(
    generate: Run, tmp_path: Path
) -> None:
    common = ["--demo", "--size", 96, "--workers=0"]
    generate(tmp_path / "few", "--pairs", 7, "--shard-pairs", 3, *common)
    generate(tmp_path / "many", "--pairs", 16, "--shard-pairs", 16, *common)
    few, many = members(tmp_path / "few", "train"), members(tmp_path / "many", "train")
    assert len(few) == 7 * 5
    assert few == {name: many[name] for name in few}


def test_the_recorded_config_makes_the_same_dataset(
    generate: Run, photos_dataset: Path, tmp_path: Path
) -> None:
    """The YAML block of the dataset's README is a --config file, as it stands."""
    text = (photos_dataset / "README.md").read_text()
    (tmp_path / "job.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    generate(tmp_path / "again", "--config", tmp_path / "job.yaml", "--workers=0")
    assert hashes(tmp_path / "again") == hashes(photos_dataset)


# --- goes on -----------------------------------------------------------------------------------


@pytest.fixture
def unfinished(
    flags: list[str], start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> Path:
    """A run that was killed after two shards or more."""
    out = tmp_path / "out"
    process = start(out, *flags, "--workers=0")
    wait_for(lambda: len(shards(out)) >= 2, process)
    process.kill()
    process.communicate()
    return out


def test_damaged_shards_are_made_again(
    flags: list[str], unfinished: Path, generate: Run, reference: Path
) -> None:
    """One with other bytes of the same length, one cut short."""
    first, second = shards(unfinished)[:2]
    data = bytearray(first.read_bytes())
    data[5000] ^= 0xFF
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:10_240])
    generate(unfinished, *flags, "--workers=0")
    assert_same(unfinished, reference)


def test_leftovers_of_the_last_step_are_removed(
    flags: list[str], unfinished: Path, generate: Run, reference: Path
) -> None:
    """Temporary files of the card, of a manifest, and of a shard that is complete already."""
    for name in ("README.md", "segswap.json", shards(unfinished)[0].name):
        (unfinished / f".{name}.123.tmp").write_text("half")
    generate(unfinished, *flags, "--workers=0")
    assert_same(unfinished, reference)


# --- what OUT may be ---------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK  # a killed command leaves its own
    }


def test_a_finished_dataset_is_left_alone(
    generate: Run, photos_dataset: Path, tmp_path: Path
) -> None:
    before = snapshot(photos_dataset)
    text = (photos_dataset / "README.md").read_text()
    (tmp_path / "job.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    done = generate(photos_dataset, "--config", tmp_path / "job.yaml", "--workers=0")
    assert "is complete already" in done.stdout
    assert snapshot(photos_dataset) == before


def test_the_work_folder_of_a_run_killed_at_the_very_end_is_removed(
    generate: Run, tmp_path: Path
) -> None:
    flags = ["--demo", "--pairs", 2, "--size", 64, "--workers=0"]
    generate(tmp_path / "out", *flags)
    (tmp_path / "out" / ".segswap").mkdir()
    generate(tmp_path / "out", *flags)
    assert_clean(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (["--seed", 3], "seed was 0, is 3"),
        (["--size", 64], "size was 128, is 64"),
        (["--blend", "paste"], "blend was 'poisson', is 'paste'"),
        (["--one.rotation", 5], "one.rotation was 15.0, is 5.0"),
    ],
)
def test_another_configuration_is_refused(
    flags: list[str], generate: Run, unfinished: Path, change: list, difference: str
) -> None:
    before = snapshot(unfinished)
    done = generate(unfinished, *flags, *change, "--workers=0", status=1)
    assert f"({difference})" in done.stderr
    assert "Traceback" not in done.stderr
    assert snapshot(unfinished) == before


def test_another_configuration_of_a_finished_dataset_is_refused(
    generate: Run, photos_dataset: Path
) -> None:
    before = snapshot(photos_dataset)
    done = generate(photos_dataset, "--demo", "--pairs", 13, "--workers=0", status=1)
    assert "pairs was 12, is 13" in done.stderr
    assert snapshot(photos_dataset) == before


def test_how_the_work_is_run_may_change(
    flags: list[str], unfinished: Path, generate: Run, reference: Path
) -> None:
    """Workers and the limit on skipped inputs belong to the run and not to the dataset."""
    generate(unfinished, *flags, "--workers=0", "--max-skipped", 0.5)
    assert_same(unfinished, reference)


@pytest.mark.parametrize("content", ["notes.txt", "train-000000.tar", ".hidden"])
def test_a_folder_of_other_files_is_refused(generate: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("mine")
    before = snapshot(tmp_path)
    done = generate(tmp_path, "--demo", "--pairs", 2, "--workers=0", status=1)
    assert "is not empty and holds no dataset" in done.stderr
    assert snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_a_file_is_refused(generate: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = generate(tmp_path / "out", "--demo", "--pairs", 2, "--workers=0", status=1)
    assert "is a file; expected a folder" in done.stderr


def test_a_newer_dataset_is_refused(generate: Run, photos_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(photos_dataset, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "segswap.json").read_text())
    (tmp_path / "out" / "segswap.json").write_text(json.dumps({**manifest, "format": 2}))
    done = generate(tmp_path / "out", "--demo", "--pairs", 12, "--workers=0", status=1)
    assert "has format 2; this version of segswap reads 1" in done.stderr


def test_a_configuration_that_cannot_work_does_not_occupy_the_folder(
    generate: Run, tmp_path: Path, shapes: tuple[Path, Path]
) -> None:
    """After the error another configuration may use the same OUT."""
    content = json.loads(shapes[0].read_text())
    content["annotations"] = [a for a in content["annotations"] if a["id"] % 10 == 0]
    (tmp_path / "single.json").write_text(json.dumps(content))
    flags = [tmp_path / "out", "--annotations", tmp_path / "single.json", "--images", shapes[1],
             "--pairs", 2, "--size", 64, "--one.dilation", 2, "--workers=0"]  # fmt: skip
    done = generate(*flags, "--objects", 2, status=1)
    assert "use --objects 1 or mix" in done.stderr
    done = generate(*flags)  # of the two that mix draws, the one that there can be
    assert "no further segment of another category in the image" in done.stdout
    records = [v for name, v in members(tmp_path / "out", "train").items() if "json" in name]
    assert [len(json.loads(record)["objects"]) for record in records] == [1, 1]


# --- splits ------------------------------------------------------------------------------------


def images_of(dataset: Path, split: str) -> set[str]:
    found = set()
    for name, data in members(dataset, split).items():
        if name.endswith(".json"):
            record = json.loads(data)
            found.add(record["background"]["image"])
            found |= {item["segment"]["image"] for item in record["objects"]}
    return found


def test_train_and_val_share_no_image(photos_dataset: Path) -> None:
    train, val = images_of(photos_dataset, "train"), images_of(photos_dataset, "val")
    assert train
    assert val
    assert not train & val


def test_keys_are_the_indices(photos_dataset: Path) -> None:
    for split, pairs in (("train", 12), ("val", 4)):
        keys = sorted({name.split(".")[0] for name in members(photos_dataset, split)})
        assert keys == [f"{index:09d}" for index in range(pairs)]
    records = [json.loads(d) for n, d in members(photos_dataset, "val").items() if "json" in n]
    assert [record["rng"] for record in records] == [[1, index] for index in range(4)]


def test_the_manifest_says_everything(photos_dataset: Path) -> None:
    manifest = json.loads((photos_dataset / "segswap.json").read_text())
    assert manifest["format"] == 1
    assert manifest["generator"].startswith("segswap ")
    assert manifest["seed"] == manifest["config"]["seed"] == 0
    assert [len(manifest["splits"][s]["shards"]) for s in ("train", "val")] == [3, 1]
    assert manifest["inputs"][0]["images"] == 12
    assert len(manifest["inputs"][0]["fingerprint"]) == 64
    assert manifest["skipped"] == []
    assert all(count > 0 for count in manifest["rejected"].values())
    assert manifest["rejected"]


@pytest.mark.parametrize("objects", ["1", "2", "mix"])
def test_objects(generate: Run, tmp_path: Path, objects: str) -> None:
    generate(
        tmp_path / "out", "--demo", "--pairs", 10, "--size", 96, "--objects", objects, "--workers=0"
    )
    records = [json.loads(d) for n, d in members(tmp_path / "out", "train").items() if "json" in n]
    counts = {len(record["objects"]) for record in records}
    assert counts == {"1": {1}, "2": {2}, "mix": {1, 2}}[objects]
