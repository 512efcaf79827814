"""Samples generated while training: what they are, and that nothing but their numbers decides."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_kinds import write_folder
from made_matches import same_batch

from pipelines.command.cluster import ray_cluster
from pipelines.generation.attribution import images_of
from pipelines.generation.config import (
    Amount,
    Composition,
    GenerateConfig,
    Inputs,
    Running,
    Styling,
)  # fmt: skip
from pipelines.generation.job import generate
from pipelines.training import live
from pipelines.training.live import LiveStream, live_stream
from segswap.batches.categories import CategoryStream
from segswap.batches.mixed import MixedStream
from segswap.batches.pictures import read_pictures
from segswap.batches.samples import choose_styled, make_sample
from segswap.data.shards import Shard, shard_name
from segswap.matchers.base import Batch

SIZE, STRIDE, SEED = 64, 8, 3
Open = Callable[..., AbstractContextManager[LiveStream]]


@pytest.fixture(scope="module", autouse=True)
def _two_cpus() -> Iterator[None]:
    """One Ray for all tests here; streams use the one that their process is in."""
    with ray_cluster(2, store=100 * 2**20):
        yield


@pytest.fixture(scope="module")
def styling(photos_dataset: Path) -> Styling:
    """Styles that change an image much."""
    return Styling("histogram", str(photos_dataset.parent / "styles"))


@pytest.fixture
def opened(styling: Styling) -> Open:
    """Opens a stream of the built-in photographs."""

    def open_stream(
        inputs: Inputs | None = None, styling: Styling = styling, workers: int = 2
    ) -> AbstractContextManager[LiveStream]:
        return live_stream(
            inputs or Inputs(demo=True), Composition(), styling, size=SIZE, stride=STRIDE,
            seed=SEED, workers=workers,
        )  # fmt: skip

    return open_stream


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    """Batches are equal in every value."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert same_batch(one, other)
        assert one.source.image.dtype == torch.uint8


def halves(batches: list[Batch]) -> list[Batch]:
    """Each batch as two."""
    return [
        batch.each(lambda tensor, half=half: tensor.chunk(2)[half])
        for batch in batches for half in (0, 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_samples_are_those_of_the_shards_that_segswap_generate_makes(
    opened: Open, styling: Styling, tmp_path: Path
) -> None:
    """Of the same inputs, settings and seed; but for JPEG, which only shards have."""
    out, count = str(tmp_path / "out"), 8
    amount = Amount(count, 1, seed=SEED, shard_pairs=count)
    demo = Inputs(demo=True)
    generate(GenerateConfig(out, amount, demo, styling=styling, running=Running(0)))
    shard = Shard.open(tmp_path / "out" / shard_name("train", 0))
    with opened() as stream:
        (batch,) = stream.batches(count, 0, 1)
        for n in range(count):
            rng = np.random.default_rng([SEED, 1, n])
            pair = shard.read(n, lambda members, rng=rng: choose_styled(members, rng))
            sample = make_sample(pair, rng, size=SIZE, cells=SIZE // STRIDE)
            for side, own in zip(batch, sample, strict=True):
                for name in ("shown", "mask", "positions", "valid"):
                    assert torch.equal(getattr(side, name)[n], getattr(own, name)), name
                difference = side.image[n].float() - own.image.float()
                assert difference.abs().mean() < 6  # another style is some 40 away
            composed = stream.pair(n)
            assert np.array_equal(composed.source_mask, shard.read(n).source_mask)
            assert composed.objects[0].segment == pair.objects[0].segment


@pytest.mark.slow
def test_workers_chunks_and_ranks_change_no_sample(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(workers=2) as stream:
        two = list(stream.batches(6, 0, 3))
    assert two[0].source.image.shape == (6, 3, SIZE, SIZE)
    assert two[0].source.image.dtype == torch.uint8
    assert not torch.equal(two[0].source.image, two[1].source.image)
    with opened(workers=1) as stream:
        assert_same(list(stream.batches(6, 0, 3)), two)
        first, second = (list(stream.batches(3, 0, 3, rank=rank, ranks=2)) for rank in (0, 1))
        ranked = [batch for step in zip(first, second, strict=True) for batch in step]
        assert_same(ranked, halves(two))
        monkeypatch.setattr(live, "_CHUNK", 4)  # samples come in threes
        monkeypatch.setattr(live, "_smallest_store", lambda: 1)  # one task at a time
        assert_same(list(stream.batches(6, 0, 2)), two[:2])


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_next_sample(opened: Open) -> None:
    with opened() as stream:
        whole = list(stream.batches(4, 0, 5))
    with opened() as stream:
        assert_same(list(stream.batches(4, 3, 5)), whole[3:])
        assert list(stream.batches(4, 5, 5)) == []


def test_batches_can_be_written_to_and_outlive_the_stream(opened: Open) -> None:
    """They are no views of Ray's memory."""
    with opened() as stream:
        batch = next(stream.batches(2, 0, 1))
        pairs = stream.val_pairs(1)
    batch.source.image.zero_()
    pairs[0].source[:] = 0
    assert not batch.source.image.any()


def test_validation_pairs_share_no_image_with_training_pairs(opened: Open, coco: list[str]) -> None:
    with opened(Inputs(annotations=coco[1], images=coco[3]), Styling()) as stream:
        val = stream.val_pairs(12)
        train = [stream.pair(number) for number in range(60)]
        assert stream.val_pairs(2)[1].objects[0].segment == val[1].objects[0].segment
    assert [pair.index for pair in val] == list(range(12))
    of_val, of_train = ({image for p in pairs for image in images_of(p)} for pairs in (val, train))
    assert len(of_val) > 8
    assert not of_val & of_train


def test_too_few_images_to_hold_some_out(
    opened: Open, shapes: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(shapes[0].read_text())
    content["images"] = content["images"][:3]
    few = tmp_path / "few.json"
    few.write_text(json.dumps(content))
    with opened(Inputs(annotations=str(few), images=str(shapes[1])), Styling()) as stream:
        assert stream.val_pairs(4) == []
        assert len(list(stream.batches(2, 0, 1))) == 1
    assert "too few images to hold some out" in capfd.readouterr().err


def test_unusable_images_are_said_once(
    opened: Open, shapes: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that is missing from the start, and one that breaks later; without any there is an
    error, and it is the generator's."""
    images = tmp_path / "images"
    shutil.copytree(shapes[1], images)
    (images / "6.png").unlink()
    inputs = Inputs(annotations=str(shapes[0]), images=str(images))
    with opened(inputs, Styling()) as stream:
        assert "left out: 6.png" in capfd.readouterr().err
        (images / "1.png").write_bytes(b"no image")
        assert len(list(stream.batches(4, 0, 4))) == 4
        said = capfd.readouterr().err
        assert said.count("left out: 1.png") == said.count("left out") == 1
        for path in images.glob("*.png"):
            path.write_bytes(b"no image")
        with pytest.raises(RuntimeError, match="none of 500 draws was acceptable"):
            list(stream.batches(4, 4, 5))


def test_closing_the_batches_ends_their_making(opened: Open) -> None:
    import ray

    with opened() as stream:
        batches = stream.batches(8, 0, 10**6)
        next(batches)
        batches.close()
        deadline = time.monotonic() + 240
        while ray.available_resources().get("CPU") != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_pairs_of_kinds_are_mixed_with_those_that_are_made(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "kinds", {"cat": [0, 1, 2], "dog": [3, 4]})
    pictures = read_pictures(source)
    grids: dict[str, Any] = {"size": SIZE, "stride": STRIDE, "seed": SEED}
    categories = CategoryStream(pictures, **grids)

    def mix(*made: Any) -> MixedStream:
        return MixedStream([*made, categories], [1, 1], **grids, kinds=2, keypoints=3)

    def opened() -> AbstractContextManager[LiveStream]:
        return live_stream(Inputs(demo=True), Composition(), Styling(), **grids, workers=2, mix=mix)

    with live_stream(Inputs(demo=True), Composition(), Styling(), **grids, workers=2) as alone:
        (made,) = alone.batches(8, 0, 1)
        generated = [made.each(lambda tensor, n=n: tensor[n]) for n in range(8)]
    with opened() as stream:
        assert stream.truth == {"pair", "mask", "positions", "same", "keypoints", "label"}
        found = list(stream.batches(8, 0, 2))
        parts = [stream._samples.place(number) for number in range(8)]  # type: ignore[union-attr]
        assert {part for part, _ in parts} == {0, 1}
        for place, (part, own) in enumerate(parts):
            sample = found[0].each(lambda tensor, place=place: tensor[place])
            told = generated[own] if part == 0 else categories[own]
            for side, expected in zip(sample, told, strict=True):
                assert torch.equal(side.image, expected.image)
                assert torch.equal(side.same, expected.same)
                assert (side.labels == -1).all() == (part == 0)
            assert (stream.pair(place) is None) == (part == 1)
    with opened() as stream:
        assert_same(list(stream.batches(8, 1, 2)), found[1:])


def test_names_and_bad_numbers(opened: Open) -> None:
    with opened(styling=Styling()) as stream:
        assert stream.name(7) == "live pair 7 (seed 3)"
    with pytest.raises(ValueError, match="--workers is 0; live generation needs at least 1"):
        opened(workers=0).__enter__()
    with (
        pytest.raises(ValueError, match="size 60 is no multiple of the matcher's stride 8"),
        live_stream(
            Inputs(demo=True), Composition(), Styling(), size=60, stride=8, seed=0, workers=1
        ),
    ):  # fmt: skip
        pass
    with pytest.raises(ValueError, match="missing"), opened(Inputs(images="missing"), Styling()):
        pass
