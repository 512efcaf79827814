"""--dry-run says what a dataset would be, --only shows one pair of it; neither touches OUT."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run

import segswap
from pipelines.command import cli
from pipelines.generation.config import GenerateConfig
from pipelines.generation.job import generate
from pipelines.generation.trial import only_pair, plan
from pipelines.pages.look import draw_pair
from segswap.data.shards import Shard
from segswap.files.images import read_image


def config(out: Path, *flags: object) -> GenerateConfig:
    return cli.parse(GenerateConfig, [str(out), *map(str, flags), "--workers=0"])


# --- --dry-run ---------------------------------------------------------------------------------


def test_what_would_be_made_of_real_images(generate: Run, coco: list[str], tmp_path: Path) -> None:
    """The estimates are held against the dataset that is then made."""
    flags = [*coco, "--pairs", 40, "--val-pairs", 20, "--shard-pairs", 16, "--workers=0"]
    flags += ["--licenses", "commercial"]
    said = generate("out", *flags, "--dry-run", cwd=tmp_path).stdout
    assert not (tmp_path / "out").exists()
    assert "pairs: 40 train in 3 shards, 20 val in 2 shards" in said
    assert "nothing is written to out: leave out --dry-run" in said
    generate("out", *flags, cwd=tmp_path)
    facts = segswap.open_dataset(tmp_path / "out").facts
    source = facts["inputs"][0]
    assert (
        f"from: {source['name']}, {source['images']} images, {source['segments']} segments" in said
    )
    assert re.search(r"left out: \d+ ", said)
    train, val = (
        int(number)
        for s in ("train", "val")
        for number in re.findall(rf"from: {s}, (\d+) im", said)
    )
    assert train + val == source["images"]
    found = re.search(r"size: about ([\d.]+) MB, ([\d.]+) kB a pair", said)
    assert found, said
    length = sum(split["bytes"] for split in facts["splits"].values())
    assert float(found[1]) == pytest.approx(length / 1e6, rel=0.25)
    assert float(found[2]) == pytest.approx(length / 1e3 / 60, rel=0.25)
    assert re.search(r"time: about \d+ s with 1 at work, \d+ ms a pair in one process", said)


def test_the_time_is_that_of_all_pairs_shared_by_the_workers(tmp_path: Path) -> None:
    found = plan(config(tmp_path / "out", "--demo", "--pairs", 10**6, "--size", 64))
    assert found is not None
    assert found.counts == {"train": (10**6, 4000)}
    assert found.workers == 1
    seconds = 10**6 * found.pair_seconds
    assert f"time: about {seconds / 3600:.1f} h" in str(found)
    assert sum(found.rejected.values()) > 0
    assert 1 <= found.tried <= 16


def test_inputs_that_cannot_be_used_are_named(data: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((data / "bsds" / "images" / "train").glob("*.jpg"))[:4]:
        (images / path.name).write_bytes(path.read_bytes())
    (images / "broken.jpg").write_text("text")
    said = str(plan(config(tmp_path / "out", "--images", images, "--pairs", 3, "--size", 96)))
    assert "from: images, 4 images, " in said
    assert (
        "from: without 1 that cannot be used: broken.jpg, not an image but text ('text')\n" in said
    )


def test_of_more_pairs_those_are_counted_that_are_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--demo", "--size", 64, "--shard-pairs", 4]
    assert generate(config(tmp_path / "out", *flags, "--pairs", 6)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    more = [*flags, "--pairs", 15, "--extend", "--dry-run"]
    assert generate(config(tmp_path / "out", *more)) == 0
    assert "pairs: 9 train in 3 shards" in capsys.readouterr().out
    assert generate(config(tmp_path / "out", *flags, "--pairs", 6, "--dry-run")) == 0
    assert "is complete already" in capsys.readouterr().out
    with pytest.raises(ValueError, match="pairs was 6, is 7"):
        generate(config(tmp_path / "out", *flags, "--pairs", 7, "--dry-run"))
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


# --- --only ------------------------------------------------------------------------------------


def test_one_pair_is_the_datasets(photos_dataset: Path, tmp_path: Path) -> None:
    """Every member, also the styled ones, of any pair, without the dataset."""
    settings = tmp_path / "job.yaml"
    settings.write_text(
        (photos_dataset / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    )
    for number in (0, 7, 11):
        found = only_pair(config(tmp_path / "out", "--config", settings), number)
        shard = Shard.open(photos_dataset / f"train-{number // 5:06d}.tar")
        assert found == shard.members(number % 5)
    assert not (tmp_path / "out").exists()


def test_the_picture_shows_what_segswap_look_shows(
    photos_dataset: Path, generate: Run, tmp_path: Path
) -> None:
    """And the command prints the record, for a bug report; a number beyond --pairs is made, too."""
    flags = ["--config", tmp_path / "job.yaml", "--only", 7, "--show", "out.png"]
    (tmp_path / "job.yaml").write_text(
        (photos_dataset / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    )
    done = generate("pairs", *flags, "--workers=0", cwd=tmp_path)
    record = json.loads(Shard.open(photos_dataset / "train-000001.tar").members(2)["json"])
    assert json.loads(done.stdout) == record
    pair = segswap.open_dataset(photos_dataset).pair(7)
    picture = read_image(str(tmp_path / "out.png"))
    plain = draw_pair(pair, pair.height)
    np.testing.assert_array_equal(picture[: plain.shape[0]], plain)
    assert picture.shape[0] == 2 * plain.shape[0]  # the styled version is below
    assert cv2.absdiff(picture[plain.shape[0] :], plain).mean() > 1
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml", "out.png"}
    far = generate("pairs", *flags[:2], "--only", 123456, "--show", "far.png", cwd=tmp_path)
    assert json.loads(far.stdout)["rng"] == [0, 123456]


def test_a_picture_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    flags = ["--demo", "--only", 0, "--show", tmp_path / "none" / "a.png"]
    with pytest.raises(ValueError, match=r"--show .* is in no folder"):
        generate(config(tmp_path / "out", *flags))
