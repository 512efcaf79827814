"""Folders as people have them: one bad entry costs itself alone, and is named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, textured
from PIL import Image
from runs import hashes

from segswap.data.shards import read_pairs

FLAGS = ["--segments", "slic", "--objects", 1, "--size", 96, "--val-pairs", 0, "--pairs", 6,
         "--shard-pairs", 3, "--style", "pixel"]  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and styles, sound: `images/`, `styles/`."""
    folder = tmp_path_factory.mktemp("given")
    for number in range(4):
        for kind in ("images", "styles"):
            (folder / kind).mkdir(exist_ok=True)
            picture = textured(90, 100, 10 * number + len(kind))
            Image.fromarray(picture).save(folder / kind / f"{number}.png")
    return folder


def made(generate: Run, out: Path, given: Path, *more: object) -> tuple[str, dict]:
    """What the command said at the end, and the manifest."""
    flags = ["--images", given / "images", "--styles", given / "styles", *FLAGS, *more]
    said = generate(out, *flags, "--workers=0").stdout.splitlines()[-1]
    return said, json.loads((out / "segswap.json").read_text())


def test_what_a_folder_holds_beside_images_changes_no_pair(
    generate: Run, given: Path, tmp_path: Path
) -> None:
    _, plain = made(generate, tmp_path / "plain", given)
    assert plain["skipped"] == []
    for kind in ("images", "styles"):
        (given / kind / "up").symlink_to("..")
        (given / kind / "loop").symlink_to(".")
        os.mkfifo(given / kind / "pipe.txt")
        (given / kind / "notes.txt").touch()
        (given / kind / "Thumbs.db").touch()
    said, manifest = made(generate, tmp_path / "more", given)
    assert hashes(tmp_path / "more") == hashes(tmp_path / "plain")
    assert [entry["image"] for entry in manifest["skipped"]] == ["up", "up"]
    assert "skipped 2 inputs, listed in segswap.json (up, a link to a folder, which is" in said


@pytest.mark.parametrize("content", ["junk", "cut"])
def test_a_style_picture_that_cannot_be_read_costs_itself_alone(
    content: str, generate: Run, given: Path, tmp_path: Path
) -> None:
    """One without a header is known before the work, one that is cut when it is drawn."""
    whole = (given / "styles" / "3.png").read_bytes()
    broken = {"junk": b"junk", "cut": whole[: len(whole) // 2]}[content]
    (given / "styles" / "3.png").write_bytes(broken)
    try:
        said, manifest = made(generate, tmp_path / "one", given)
        other = ["--shard-pairs", 2]
        made(generate, tmp_path / "other", given, *other)
    finally:
        (given / "styles" / "3.png").write_bytes(whole)
    named = [entry["image"] for entry in manifest["skipped"] if entry.get("kind") == "style"]
    assert named.count("3.png") == 1
    assert "3.png" in said
    pairs = list(read_pairs(tmp_path / "one", "train"))
    assert {style["image"] for p in pairs for style in p.styles.values()} <= {
        "0.png", "1.png", "2.png"
    }  # fmt: skip
    for pair, same in zip(pairs, read_pairs(tmp_path / "other", "train"), strict=True):
        assert pair.styles == same.styles
        np.testing.assert_array_equal(pair.source_styled, same.source_styled)


def test_styles_of_which_none_can_be_read_end_the_run(
    generate: Run, given: Path, tmp_path: Path
) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "x.png").write_bytes(b"junk")
    flags = ["--images", given / "images", *FLAGS, "--styles", tmp_path / "styles"]
    said = generate(tmp_path / "out", *flags, "--workers=0", status=1).stderr
    assert "holds no usable picture: x.png: not an image" in said
