"""--extend: more pairs for a finished dataset, whose shards keep their bytes, also after a kill."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from runs import assert_clean, hashes, shards, wait_for

import segswap
from pipelines.check.job import CheckConfig, check
from pipelines.command import cli
from pipelines.generation.config import GenerateConfig
from pipelines.generation.job import generate
from segswap.data.manifest import DatasetError
from segswap.data.shards import encode_pair, read_pairs


def config_of(out: Path | str, *flags: object) -> GenerateConfig:
    return cli.parse(GenerateConfig, [str(out), *map(str, flags), "--workers=0"])


def run(out: Path, *flags: object) -> int:
    return generate(config_of(out, *flags))


def members(dataset: Path) -> dict[str, bytes]:
    """All members of the train split, by name."""
    found = {}
    for path in sorted(dataset.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            found |= {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    return found


def manifest_of(dataset: Path) -> dict[str, Any]:
    return json.loads((dataset / "segswap.json").read_text())


@pytest.fixture(scope="module")
def small(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's first 37 train pairs in shards of 15, 15 and 7, and its 15 val pairs."""
    out = tmp_path_factory.mktemp("small") / "dataset"
    run(out, *flags, "--pairs", 37)
    return out


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "dataset"))


def test_the_pairs_are_those_of_a_dataset_made_at_once(
    flags: list[str], copied: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(copied)
    assert run(copied, *flags, "--pairs", 300, "--extend") == 0
    after = hashes(copied)
    assert {name: after[name] for name in before} == before
    assert members(copied) == members(reference)
    assert_clean(copied)
    found, wanted = manifest_of(copied), manifest_of(reference)
    assert found["rejected"] == wanted["rejected"]
    assert found["config"] == wanted["config"]
    sizes = [shard["pairs"] for shard in found["splits"]["train"]["shards"]]
    assert sizes == [15, 15, 7] + [15] * 17 + [8]
    for name in ("attribution.csv", "examples.jpg"):
        assert (copied / name).read_bytes() == (reference / name).read_bytes()
    assert "| train | 300 | 21 |" in (copied / "README.md").read_text()
    speed = json.loads((copied / "throughput.json").read_text())
    assert (speed["pairs"], speed["pairs_this_run"]) == (315, 263)
    assert check(CheckConfig(str(copied), register=10)) == 0
    capsys.readouterr()
    run(copied, *flags, "--pairs", 300, "--extend")
    assert "is complete already" in capsys.readouterr().out


def test_val_pairs_and_several_times(flags: list[str], copied: Path, tmp_path: Path) -> None:
    run(copied, *flags, "--pairs", 37, "--val-pairs", 18, "--extend")
    run(copied, *flags, "--pairs", 40, "--val-pairs", 18, "--extend")
    run(tmp_path / "once", *flags, "--pairs", 40, "--val-pairs", 18)
    for split in ("train", "val"):
        found, wanted = (
            [pair.target.tobytes() for pair in read_pairs(dataset, split)]
            for dataset in (copied, tmp_path / "once")
        )
        assert found == wanted
    assert segswap.open_dataset(copied).pair(38).index == 38


def test_at_a_url(flags: list[str], small: Path, reference: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(small), "/extended", recursive=True)
    assert generate(config_of("memory://extended", *flags, "--pairs", 50, "--extend")) == 0
    dataset = segswap.open_dataset("memory://extended")
    assert dataset.splits == {"train": 50, "val": 15}
    wanted = segswap.open_dataset(reference).pair(44)
    assert encode_pair(dataset.pair(44)) == encode_pair(wanted)
    assert not memory.exists("/extended/.segswap")
    memory.rm("/extended", recursive=True)


def test_killed_in_the_middle_the_old_dataset_is_there_and_the_same_command_finishes(
    flags: list[str], copied: Path, reference: Path,
    start: Callable[..., subprocess.Popen[str]],
) -> None:  # fmt: skip
    before = hashes(copied)
    more = [*flags, "--pairs", 300, "--extend"]
    process = start(copied, *more, "--workers=0")
    wait_for(lambda: len(shards(copied)) >= len(before) + 2, process)
    process.kill()
    process.communicate()
    there = segswap.open_dataset(copied)
    assert there.splits == {"train": 37, "val": 15}
    assert [pair.index for pair in there.pairs()] == list(range(37))
    assert hashes(copied) == before
    # What is begun is not mistaken for another dataset, nor left lying about.
    with pytest.raises(DatasetError, match="finish that first, with --extend --pairs 300"):
        run(copied, *flags, "--pairs", 37)
    with pytest.raises(DatasetError, match="pairs was 300, is 200"):
        run(copied, *flags, "--pairs", 200, "--extend")
    recorded = {path.stem for path in (copied / ".segswap").glob("*.tar.json")}
    assert recorded
    made = {name: (copied / name).stat().st_mtime_ns for name in recorded}
    assert run(copied, *more) == 0
    assert {name: (copied / name).stat().st_mtime_ns for name in recorded} == made
    assert {name: digest for name, digest in hashes(copied).items() if name in before} == before
    assert members(copied) == members(reference)
    assert_clean(copied)


def test_killed_at_the_very_end_it_is_complete(flags: list[str], copied: Path) -> None:
    more = [*flags, "--pairs", 40, "--extend"]
    run(copied, *more)
    (copied / ".segswap").mkdir()
    (copied / ".segswap" / "job.json").write_text(json.dumps(manifest_of(copied)["config"]))
    assert run(copied, *more) == 0
    assert_clean(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--size", 96], r"\(size was 128, is 96\)"),
        (["--seed", 3, "--blend", "paste"], r"\(blend was 'poisson', is 'paste'; seed was 0, is 3"),
        (["--pairs", 36], "--pairs is 36, but .* has 37 already; --extend adds pairs: give the"),
        (["--val-pairs", 3], "--val-pairs is 3, but .* has 15 already"),
        (["--val-pairs", 0], "--val-pairs is 0, but .* has 15 already"),
    ],
)
def test_what_cannot_be_extended_is_left_alone(
    flags: list[str], small: Path, change: list[object], message: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.iterdir()}
    with pytest.raises(DatasetError, match=message):
        run(small, *flags, "--pairs", 60, "--extend", *change)
    assert {path: path.stat().st_mtime_ns for path in small.iterdir()} == before


def test_another_split_would_share_images(tmp_path: Path) -> None:
    run(tmp_path / "out", "--demo", "--pairs", 2, "--size", 64)
    with pytest.raises(DatasetError, match="has none of that split, and its pairs are made of all"):
        run(tmp_path / "out", "--demo", "--pairs", 2, "--val-pairs", 1, "--size", 64, "--extend")


def test_only_a_finished_dataset_is_extended(
    flags: list[str], copied: Path, tmp_path: Path
) -> None:
    for out in (tmp_path / "new", copied):
        (copied / "segswap.json").unlink(missing_ok=True)
        with pytest.raises(DatasetError, match="holds no finished dataset; make or finish it by"):
            run(out, *flags, "--pairs", 60, "--extend")
    assert not (tmp_path / "new").exists()


def test_a_hint_without_the_flag(flags: list[str], small: Path) -> None:
    with pytest.raises(DatasetError, match=r"pairs was 37, is 60.*--extend adds pairs"):
        run(small, *flags, "--pairs", 60)


def test_other_inputs_are_refused(shapes: tuple[Path, Path], tmp_path: Path) -> None:
    """By their index; and where that is the same, by the first pair, made again."""
    images = Path(shutil.copytree(shapes[1], tmp_path / "images"))
    content = json.loads(shapes[0].read_text())
    (tmp_path / "shapes.json").write_text(json.dumps(content))
    flags = ["--annotations", tmp_path / "shapes.json", "--images", images, "--size", 96,
             "--objects", 1, "--one.dilation", 2]  # fmt: skip
    run(tmp_path / "out", *flags, "--pairs", 4)
    before = hashes(tmp_path / "out")
    (tmp_path / "shapes.json").write_text(
        json.dumps({**content, "annotations": content["annotations"][2:]})
    )
    with pytest.raises(DatasetError, match="were 8 images and 16 segments, and are 8 and 14"):
        run(tmp_path / "out", *flags, "--pairs", 8, "--extend")
    (tmp_path / "shapes.json").write_text(json.dumps(content))
    for path in images.glob("*.png"):
        path.write_bytes((shapes[1] / "0.png").read_bytes())
    with pytest.raises(DatasetError, match=r"the first pair of .* would have another"):
        run(tmp_path / "out", *flags, "--pairs", 8, "--extend")
    for path in shapes[1].glob("*.png"):
        shutil.copy(path, images)
    assert run(tmp_path / "out", *flags, "--pairs", 4) == 0  # nothing is begun
    assert run(tmp_path / "out", *flags, "--pairs", 8, "--extend") == 0
    assert {n: digest for n, digest in hashes(tmp_path / "out").items() if n in before} == before


def test_images_that_were_lost_are_not_counted_twice(
    shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    images = Path(shutil.copytree(shapes[1], tmp_path / "images"))
    data = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(data[: len(data) // 2])
    (images / "3.png").write_text("no image")
    flags = ["--annotations", shapes[0], "--images", images, "--size", 64, "--objects", 1,
             "--one.dilation", 2, "--max-skipped", 0.5]  # fmt: skip
    run(tmp_path / "out", *flags, "--pairs", 20)
    run(tmp_path / "out", *flags, "--pairs", 40, "--extend")
    run(tmp_path / "once", *flags, "--pairs", 40)
    found, wanted = manifest_of(tmp_path / "out"), manifest_of(tmp_path / "once")
    assert found["skipped"] == wanted["skipped"]
    assert {item["image"] for item in found["skipped"]} == {"2.png", "3.png"}
    assert found["rejected"] == wanted["rejected"]
