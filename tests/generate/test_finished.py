"""A finished dataset: what is gone of it is made again, and its status stays what it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run
from runs import CARD, assert_clean

import segswap

FLAGS = ["--pairs", 5, "--val-pairs", 3, "--val-share", 0.5, "--shard-pairs", 2, "--size", 64,
         "--objects", 1, "--one.dilation", 2, "--workers=0"]  # fmt: skip


@pytest.fixture(scope="module")
def inputs(shapes: tuple[Path, Path]) -> list[object]:
    return ["--annotations", shapes[0], "--images", shapes[1], *FLAGS]


@pytest.fixture(scope="module")
def finished(inputs: list[object], generate: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "dataset"
    generate(out, *inputs)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "dataset"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("names", "harm"),
    [
        (["train-000000.tar"], Path.unlink),
        (["train-000001.tar", "val-000001.tar"], cut),
        (["train-000002.tar"], lambda path: path.write_bytes(b"")),
        (["train-000000.tar", *CARD], Path.unlink),
        (["README.md"], Path.unlink),
        (["attribution.csv"], Path.unlink),
        (["examples.jpg", "croissant.json"], Path.unlink),
    ],
)
def test_what_is_gone_is_made_again_to_the_same_bytes(
    names: list[str], harm: Callable[[Path], object], inputs: list[object], finished: Path,
    out: Path, generate: Run,
) -> None:  # fmt: skip
    for name in names:
        harm(out / name)
    done = generate(out, *inputs)
    assert "is complete again: " in done.stdout
    for path in finished.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert_clean(out)
    assert len(list(segswap.open_dataset(out).pairs("train"))) == 5
    assert generate(out, *inputs).stdout == f"{out} is complete already\n"


def test_hashes_are_compared_on_request(
    inputs: list[object], finished: Path, out: Path, generate: Run
) -> None:
    shard = out / "val-000000.tar"
    data = bytearray(shard.read_bytes())
    data[3000] ^= 1
    shard.write_bytes(data)
    assert "is complete already" in generate(out, *inputs).stdout
    assert "val-000000.tar had to be made anew" in generate(out, *inputs, "--verify").stdout
    assert shard.read_bytes() == (finished / shard.name).read_bytes()
    assert "is complete already" in generate(out, *inputs, "--verify").stdout


def test_other_inputs_make_no_other_bytes(
    shapes: tuple[Path, Path], tmp_path: Path, generate: Run
) -> None:
    images = Path(shutil.copytree(shapes[1], tmp_path / "images"))
    inputs = ["--annotations", shapes[0], "--images", images, *FLAGS]
    out = tmp_path / "out"
    generate(out, *inputs)
    (out / "train-000001.tar").unlink()
    for path in images.glob("*.png"):  # of the same sizes: the index is the same
        path.write_bytes((shapes[1] / "0.png").read_bytes())
    before = {path: path.read_bytes() for path in out.iterdir()}
    done = generate(out, *inputs, status=1)
    assert "train-000001.tar" in done.stderr
    assert "cannot be made again to the same bytes" in done.stderr
    assert {p: p.read_bytes() for p in out.iterdir() if p.name != ".segswap"} == before


def test_an_extended_dataset_is_made_again_as_it_was(
    inputs: list[object], out: Path, generate: Run
) -> None:
    more = [*inputs, "--pairs", 8]
    (out / "train-000000.tar").rename(out.parent / "kept.tar")
    done = generate(out, *more, "--extend", status=1)
    assert "lacks train-000000.tar; make that first" in done.stderr
    assert "without --extend, with --pairs 5 --val-pairs 3" in done.stderr
    generate(out, *inputs)
    generate(out, *more, "--extend")
    whole = {path.name: path.read_bytes() for path in out.glob("*.tar")}
    for name in ("train-000002.tar", "train-000003.tar"):  # one pair, and two
        (out / name).unlink()
    generate(out, *more)
    assert {path.name: path.read_bytes() for path in out.glob("*.tar")} == whole
    (out / "train-000003.tar").unlink()
    generate(out, *more, "--extend")
    assert {path.name: path.read_bytes() for path in out.glob("*.tar")} == whole


def test_the_status_is_that_of_the_dataset(
    shapes: tuple[Path, Path], tmp_path: Path, generate: Run
) -> None:
    """Whether an image was found to be broken at once, or only when it was drawn."""
    images = Path(shutil.copytree(shapes[1], tmp_path / "images"))
    data = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(data[: len(data) // 2])
    (images / "3.png").write_text("no image")
    command = [tmp_path / "out", "--annotations", shapes[0], "--images", images, "--pairs", 12,
               "--size", 64, "--objects", 1, "--one.dilation", 2, "--workers=0"]  # fmt: skip
    first = generate(*command, status=3)
    assert "2 of 8 images could not be used" in first.stdout
    again = generate(*command, status=3)
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
    assert generate(*command, "--max-skipped", 0.5).returncode == 0
    (tmp_path / "out" / "train-000000.tar").unlink()
    generate(*command, status=3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": 5}, "segswap.json's config is an integer; expected an object"),
        ({"config": {"pairs": 5}}, "config has no val_pairs"),
        ({"inputs": [{"name": "a"}]}, "inputs[0] has no images"),
        ({"skipped": [3]}, "skipped[0] is an integer"),
        ({"splits": {"train": {"shards": []}}}, "splits has no val"),
        ({"rejected": None}, "rejected is null"),
        ({"seed": True}, "seed is true or false; expected an integer"),
    ],
)
def test_a_strangers_manifest(
    change: dict[str, object], said: str, inputs: list[object], out: Path, generate: Run
) -> None:
    path = out / "segswap.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    done = generate(out, *inputs, status=1)
    assert said in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["skipped.json", "index/header.json", "index/segments.npy"])
def test_a_kept_index_that_was_damaged_is_made_anew(
    name: str, inputs: list[object], finished: Path, tmp_path: Path, generate: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SEGSWAP_CACHE", str(tmp_path / "cache"))
    generate(tmp_path / "first", *inputs)
    (kept,) = (tmp_path / "cache" / "indexes").iterdir()
    (kept / name).write_bytes(b"{")
    generate(tmp_path / "second", *inputs)
    for path in finished.glob("*.tar"):
        assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes()
