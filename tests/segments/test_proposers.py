"""A proposer is a file: found by its name, built where it works, given batches, asked for scores
and categories. Shown on one that is made here.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import textured

import generators.segments
from generators.composition.compose import generate_pair
from generators.composition.recipe import ONE_OBJECT, Look
from generators.segments import build_proposer, proposer_names
from generators.segments.common.proposer import Proposer
from generators.segments.common.regions import Regions
from generators.sources import folder as folders
from generators.sources.folder import folder_index
from generators.sources.index import UNKNOWN, Index, Pool
from pipelines.command import cli
from pipelines.generation.config import Amount, Composition, GenerateConfig, Inputs, Running
from pipelines.generation.job import generate
from segswap.data.shards import read_pairs
from segswap.files.hashes import file_hash

TRAINED = ("sccam", "seam")  # which have no weights of their own; see test_learned.py
MADE = """
import numpy as np

from generators.segments.common.proposer import Proposer
from generators.segments.common.regions import Regions
from segswap.files.images import ImageError

BATCHES = []


class TwoColours(Proposer):
    takes_weights = True

    def regions(self, images, paths):
        BATCHES.append([image.shape[:2] for image in images])
        return [self._regions(image, path) for image, path in zip(images, paths, strict=True)]

    def _regions(self, image, path):
        if "unlucky" in path:
            raise ImageError(path, "out of luck")
        for channel, score, category in ((0, 0.75, "red"), (1, 0.25, "green")):
            yield Regions(image[..., channel] == 255, score, category)
        yield Regions(image[..., 2] == 255)
"""
RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)  # as OpenCV has them
HEIGHT, WIDTH = 120, 160


def picture(*colours: tuple[int, int, int], side: int = 50) -> np.ndarray:
    """A square of each colour on a texture that has none of them: uint8 (120, 160, 3) BGR."""
    image = np.minimum(textured(HEIGHT, WIDTH, 1), 250)
    for place, colour in enumerate(colours):
        left = 15 + 75 * place
        cv2.rectangle(image, (left, 30), (left + side - 1, 30 + side - 1), colour, -1)
    return image


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The made proposer's module, as a file of the folder of proposers."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "two_colours.py").write_text(MADE)
    paths = [*generators.segments.__path__, str(tmp_path / "more")]
    monkeypatch.setattr(generators.segments, "__path__", paths)
    monkeypatch.delitem(sys.modules, "generators.segments.two_colours", raising=False)
    folders.proposer_of.cache_clear()
    build_proposer("two_colours")
    return sys.modules["generators.segments.two_colours"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve pictures: 0 to 4 show red, 5 to 8 green, 9 both, 10 red nearly everywhere, 11 blue."""
    folder = tmp_path / "images"
    folder.mkdir()
    shown = [[RED]] * 5 + [[GREEN]] * 4 + [[RED, GREEN], [RED], [BLUE]]
    for number, colours in enumerate(shown):
        image = picture(*colours, side=50 if number != 10 else 120)
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    return folder


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", proposer_names())
def test_every_module_is_a_proposer(name: str) -> None:
    """The modules are counted by hand, so that none is passed over."""
    files = Path(generators.segments.__file__).parent.glob("[a-z]*.py")
    assert proposer_names() == sorted(path.stem for path in files)
    if name in TRAINED:
        with pytest.raises(ValueError, match=f"{name} has no weights of its own: train some"):
            build_proposer(name)
        return
    made = build_proposer(name)
    assert isinstance(made, Proposer)
    weights = [] if made.weights_file is None else [file_hash(made.weights_file)]
    assert made.fingerprint.split() == [name, str(made.version), *weights]
    assert made.network == bool(weights)


def test_a_new_file_is_a_new_proposer(module: Any) -> None:
    assert "two_colours" in proposer_names()
    assert isinstance(build_proposer("two_colours"), module.TwoColours)
    parsed = cli.parse(GenerateConfig, ["out", "--images", "i", "--segments", "two_colours"])
    assert parsed.inputs.segments == "two_colours"


def test_the_help_lists_proposers_and_imports_none(tmp_path: Path) -> None:
    (tmp_path / "another_one.py").write_text("raise RuntimeError('imported')")
    code = f"""
import sys
import generators.segments
generators.segments.__path__.append({str(tmp_path)!r})
from pipelines.command import cli
from pipelines.generation.job import GenerateConfig
try:
    cli.parse(GenerateConfig, ["--help"])
finally:
    names = generators.segments.proposer_names()
    loaded = [name for name in names if f"generators.segments.{{name}}" in sys.modules]
    print("loaded", loaded, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "loaded [] False" in done.stdout
    said = "".join(c for c in done.stdout if c not in "│" and not c.isspace())  # it is wrapped
    assert "{another_one,cam,felzenszwalb,grouping,labels,ldf,sccam,seam,slic}|RUN" in said


def test_an_unknown_name_is_told_the_nearest_and_all(module: Any) -> None:
    names = ", ".join(proposer_names())
    expected = (
        f"no proposer is called 'two_colors'; the nearest is two_colours, and there are {names}"
    )
    for make in (build_proposer, lambda name: Inputs(images="i", segments=name)):
        with pytest.raises(ValueError, match=expected):
            make("two_colors")
    for name in ("common", "common.regions", "", "../slic"):
        with pytest.raises(ValueError, match="no proposer is called"):
            build_proposer(name)


@pytest.mark.parametrize("name", ["cam", "felzenszwalb", "grouping", "labels", "slic"])
def test_proposers_without_weights_refuse_them(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} takes no weights, and w.pt was given"):
        build_proposer(name, "w.pt")


# --- batches -----------------------------------------------------------------------------------


def test_a_batch_gives_what_its_images_give_alone(images: Path) -> None:
    pictures = [cv2.imread(str(path)) for path in sorted(images.iterdir())]
    pictures = [np.ascontiguousarray(each[: 120 - 3 * i]) for i, each in enumerate(pictures)]
    paths = [str(path) for path in sorted(images.iterdir())]
    for name in ("felzenszwalb", "slic", "grouping"):
        made = build_proposer(name)
        together = made.propose(pictures, paths, (0.02, 0.5))
        alone = [made.propose([each], [""], (0.02, 0.5))[0] for each in pictures]
        assert together == alone
        assert sum(len(found.proposals) for found in together) >= 10
        for found, image in zip(together, pictures, strict=True):
            for proposal in found.proposals:
                assert proposal.mask.shape == image.shape[:2]
                assert (proposal.score, proposal.category) == (1.0, None)


def test_a_folder_arrives_in_batches(
    module: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, skipped = folder_index(images, "two_colours", 0.01, 0.6)
    assert skipped == []
    assert [len(batch) for batch in module.BATCHES] == [8, 4]
    assert module.BATCHES[0] == [(HEIGHT, WIDTH)] * 8
    # Large pictures come fewer at a time.
    module.BATCHES.clear()
    monkeypatch.setattr(folders, "_BATCH_BYTES", 3 * HEIGHT * WIDTH * 3 - 100)
    again, _ = folder_index(images, "two_colours", 0.01, 0.6)
    assert [len(batch) for batch in module.BATCHES] == [3, 3, 2, 3, 1]
    assert again.header == index.header


def test_one_bad_image_of_a_batch_is_skipped_alone(module: Any, images: Path) -> None:
    (images / "03.png").rename(images / "unlucky.png")
    (images / "04.png").write_text("no image")
    index, skipped = folder_index(images, "two_colours", 0.01, 0.6)
    assert skipped == [
        {"image": "04.png", "reason": "not an image but text ('no image')"},
        {"image": "unlucky.png", "reason": "out of luck"},
    ]
    assert [len(batch) for batch in module.BATCHES] == [7, 4]
    assert len(index) == 10


# --- scores and categories ---------------------------------------------------------------------


def test_scores_and_categories_reach_the_index(module: Any, images: Path, tmp_path: Path) -> None:
    made, _ = folder_index(images, "two_colours", 0.01, 0.6)
    made.save(tmp_path / "index")
    for index in (made, Index.load(tmp_path / "index")):
        assert index.header["categories"] == ["green", "red"]
        found = [index.segment(i) for i in range(len(index.arrays["segments"]))]
        named = [
            (segment.image, index.category_name(segment.category), segment.score)
            for segment in found
        ]
        red, green = ("red", 0.75), ("green", 0.25)
        assert named == [
            *[(i, *red) for i in range(5)], *[(i, *green) for i in range(5, 9)],
            (9, *red), (9, *green), (11, None, 1.0),
        ]  # fmt: skip
        for segment in found:
            assert index.mask(segment).sum() == 50 * 50
        # The red of picture 10 is no segment to copy, but there it is.
        shows = [(index.shows(i, 1), index.shows(i, 0)) for i in range(12)]
        assert shows == [
            *[(True, False)] * 5, *[(False, True)] * 4, (True, True), (True, False), (False, False)
        ]  # fmt: skip
        assert not index.shows(11, UNKNOWN)


def test_backgrounds_avoid_the_category(module: Any, images: Path) -> None:
    pool = Pool.whole(folder_index(images, "two_colours", 0.01, 0.6)[0])
    look = Look(size=96, blends={"paste": 1.0})
    allowed = {"red": {5, 6, 7, 8, 11}, "green": {0, 1, 2, 3, 4, 10, 11}, None: set(range(12))}
    seen: dict[str | None, set[int]] = {category: set() for category in allowed}
    for seed in range(150):
        pair = generate_pair(pool, ONE_OBJECT, np.random.default_rng(seed), look=look)
        seen[pair.objects[0].category].add(int(Path(pair.background["image"]).stem))
    assert seen["red"] == allowed["red"]
    assert seen["green"] == allowed["green"]
    assert len(seen[None]) > 5


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="a score from 0 to 1"):
        Regions(np.ones((4, 4), bool), score)


# --- the command -------------------------------------------------------------------------------


def test_indexes_are_kept_for_the_same_proposer_alone(
    module: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGSWAP_CACHE", str(tmp_path / "cache"))

    def batches(out: str) -> int:
        """How many a job gave to the proposer."""
        module.BATCHES.clear()
        config = GenerateConfig(
            str(tmp_path / out), Amount(pairs=4, size=64),
            Inputs(images=str(images), segments="two_colours"), Composition(objects="1"),
            running=Running(0),
        )  # fmt: skip
        assert generate(config) == 0
        return len(module.BATCHES)

    assert [batches("first"), batches("again")] == [2, 0]
    monkeypatch.setattr(module.TwoColours, "version", 2)
    assert [batches("changed"), batches("changed again")] == [2, 0]
    for pair in read_pairs(tmp_path / "changed", "train"):
        assert pair.objects[0].category in ("red", "green", None)
        assert pair.objects[0].segment["proposer"] == "two_colours"
        assert "score" not in pair.objects[0].segment


def test_the_fingerprint_holds_the_weights(module: Any, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    prints = [build_proposer("two_colours").fingerprint]
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        prints.append(build_proposer("two_colours", str(weights)).fingerprint)
    assert len(set(prints)) == 3
    weights.write_bytes(b"one")
    assert build_proposer("two_colours", str(weights)).fingerprint == prints[1]


def test_weights_reach_the_proposer(
    module: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    found = module.TwoColours.regions

    def regions(self: Any, pictures: Any, paths: Any) -> Any:
        seen.add(self.weights)
        return found(self, pictures, paths)

    monkeypatch.setattr(module.TwoColours, "regions", regions)
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"one")
    folder_index(images, "two_colours", 0.01, 0.6, weights=str(weights))
    folder_index(images, "two_colours", 0.01, 0.6)
    assert seen == {str(weights), None}
