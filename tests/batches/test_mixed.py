"""Streams as one: the same kinds and keypoints, shares, and unknown what a stream does not tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_kinds import NAMES, write_coco, write_folder
from made_matches import same_batch
from streams import CELLS, SIZE, STRIDE, made
from streams import stream_of as pairs_of

from segswap.batches.categories import CategoryStream
from segswap.batches.held_out import held_out_pairs
from segswap.batches.mixed import MixedStream
from segswap.batches.picture import Pictures, merged
from segswap.batches.pictures import read_pictures
from segswap.files.hashes import file_hash
from segswap.training.objective import negative_targets


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Pictures, ...]:
    """COCO's cat, dog and boat; a folder's Cat and sofa, whose keypoints are others but for one."""
    folder = write_folder(tmp_path / "kinds", {"Cat": [10, 11, 12], "sofa": [13, 14]})
    path = Path(folder) / "keypoints.json"
    path.write_text(path.read_text().replace("left_eye", "left_ear").replace("right_e", "right_E"))
    return merged([read_pictures(write_coco(tmp_path / "coco")), read_pictures(folder)])


def mix_of(
    dataset: str, sources: tuple[Pictures, ...], weights: tuple[float, ...] = (2, 1, 1),
    workers: int = 0, skip_bad: bool = False, **changes: Any,
) -> MixedStream:  # fmt: skip
    grids: dict[str, Any] = {"size": SIZE, "stride": STRIDE, "seed": 3} | changes
    kinds = (CategoryStream(s, **grids, skip_bad=skip_bad) for s in sources)
    streams = [pairs_of(dataset, **grids), *kinds]
    return MixedStream(
        streams, weights, **grids, kinds=len(sources[0].kinds),
        keypoints=len(sources[0].keypoints), workers=workers,
    )  # fmt: skip


def test_a_kind_of_one_name_is_one_kind_and_so_is_a_keypoint(sources: tuple[Pictures, ...]) -> None:
    coco, folder = sources
    assert coco.kinds == folder.kinds == ("cat", "dog", "boat", "sofa")
    assert coco.keypoints == folder.keypoints == (*NAMES, "left_ear", "right_Eye")
    # COCO does not say whether there is a sofa, the folder nothing but what it is of.
    assert [p.labels.tolist() for p in coco.pictures] == [
        [1, 0, 0, -1], [1, 0, 0, -1], [0, 1, 0, -1], [1, 1, 0, -1]
    ]  # fmt: skip
    assert [p.labels.tolist() for p in folder.pictures] == [
        [1, -1, -1, -1]] * 3 + [[-1, -1, -1, 1]] * 2  # fmt: skip
    cat, sofa = folder.pictures[0], folder.pictures[3]
    assert set(cat.masks) == set(cat.points) == {0}
    assert set(sofa.masks) == set(sofa.points) == {3}
    assert np.isfinite(cat.points[0]).all(1).tolist() == [False, False, True, True, True]
    assert np.isfinite(coco.pictures[0].points[0]).all(1).tolist() == [True] * 3 + [False] * 2


def test_what_one_source_holds_out_is_trained_on_in_none(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", {"cat": [0, 1, 2, 3]})
    other = write_folder(tmp_path / "other", {"cat": [2, 3, 4, 5]})
    (tmp_path / "one" / "heldout.txt").write_text("cat/2.png\ncat/0.png\n")
    first, second = merged([read_pictures(one), read_pictures(other)])
    assert [Path(p.path).name for p in first.pictures] == ["1.png", "3.png"]
    assert [Path(p.path).name for p in second.pictures] == ["3.png", "4.png", "5.png"]
    assert [Path(p.path).name for p in first.held_out] == ["0.png", "2.png"]
    assert not second.held_out
    (tmp_path / "one" / "heldout.txt").write_text("cat/2.png\ncat/3.png\n")
    third = write_folder(tmp_path / "third", {"cat": [2, 3, 4]})
    with pytest.raises(ValueError, match="third holds 1 pictures, beside 2 held out, of 1 kinds"):
        merged([read_pictures(one), read_pictures(third)])


def test_all_samples_of_a_mix_have_the_same_fields(
    sources: tuple[Pictures, ...], tmp_path: Path
) -> None:
    mix = mix_of(made(tmp_path / "pairs", 4), sources, mask_stride=4)
    known = {"pair", "mask", "positions", "same", "keypoints", "label"}
    assert mix.truth == known
    shapes = {
        "image": ((3, SIZE, SIZE), torch.uint8), "mask": ((2 * CELLS, 2 * CELLS), torch.float32),
        "same": ((CELLS, CELLS), torch.float32), "positions": ((CELLS, CELLS, 2), torch.float32),
        "valid": ((CELLS, CELLS), torch.bool), "keypoints": ((5, 2), torch.float32),
        "seen": ((5,), torch.bool), "labels": ((4,), torch.int8), "shown": ((4,), torch.int64),
    }  # fmt: skip
    for number in range(30):
        item = mix[number]
        assert item.truth == known
        for side in item:
            assert {n: (tuple(v.shape), v.dtype) for n, v in side._asdict().items()} == shapes
            if mix.place(number)[0] == 0:
                assert (side.labels == -1).all()
                assert not side.seen.any()
                assert side.mask.isfinite().all()
            else:
                assert (side.labels == 1).any()
    (batch,) = mix.batches(12, 0, 1)
    assert batch.truth == known


def test_what_no_stream_knows_is_not_there(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        folder = write_folder(tmp_path / kind, {kind: [0, 1]}, keypoints=False)
        for mask in (Path(folder) / "masks" / kind).iterdir():
            mask.unlink()
    sources = merged([read_pictures(str(tmp_path / kind)) for kind in ("cat", "dog")])
    grids: dict[str, Any] = {"size": SIZE, "stride": STRIDE}
    streams = [CategoryStream(source, **grids) for source in sources]
    mix = MixedStream(streams, [1, 1], **grids, kinds=2)
    assert mix.truth == mix[0].truth == {"pair", "label", "same", "positions"}


def test_each_stream_goes_through_its_own_samples_in_its_share(
    sources: tuple[Pictures, ...], tmp_path: Path
) -> None:
    mix = mix_of(made(tmp_path / "pairs", 4), sources, (2, 1, 1))
    places = [mix.place(number) for number in range(1000)]
    assert np.bincount([part for part, _ in places]).tolist() == [500, 250, 250]
    for which in range(3):
        numbers = [number for part, number in places if part == which]
        assert numbers == list(range(len(numbers)))
    for number in range(20):
        part, own = places[number]
        told = mix.streams[part][own]
        for side, expected in zip(mix[number], told, strict=True):
            for name, value in expected._asdict().items():
                if value is not None:
                    torch.testing.assert_close(getattr(side, name), value, equal_nan=True)
        assert mix.name(number) == mix.streams[part].name(own)


def test_loaders_ranks_and_resuming_change_no_sample_of_a_mix(
    sources: tuple[Pictures, ...], tmp_path: Path
) -> None:
    dataset = made(tmp_path / "pairs", 4)
    whole = list(mix_of(dataset, sources).batches(4, 0, 3))
    loaded = list(mix_of(dataset, sources, workers=2).batches(4, 1, 3))
    assert all(same_batch(a, b) for a, b in zip(whole[1:], loaded, strict=True))
    mix = mix_of(dataset, sources)
    ranked = [list(mix.batches(2, 0, 3, rank=rank, ranks=2)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        for rank in (0, 1):
            part = batch.each(lambda tensor, rank=rank: tensor[2 * rank : 2 * rank + 2])
            assert same_batch(ranked[rank][step], part)
    together = mix.together(range(4))
    assert all(same_batch(one, mix[number]) for number, one in enumerate(together))


def test_pairs_are_those_of_the_generated_samples_alone(
    sources: tuple[Pictures, ...], tmp_path: Path
) -> None:
    mix = mix_of(made(tmp_path / "pairs", 4), sources)
    for number in range(12):
        part, own = mix.place(number)
        pair = mix.pair(number)
        assert (pair is None) == (part != 0)
        if pair is not None:
            assert pair.index == mix.streams[0].pair(own).index  # type: ignore[attr-defined]


def test_what_is_passed_over_is_said_once_for_all_streams(
    sources: tuple[Pictures, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(sources[1].pictures[0].path).write_bytes(b"no picture")
    Path(sources[0].pictures[0].path).write_bytes(b"no picture")
    mix = mix_of(made(tmp_path / "pairs", 4), sources, skip_bad=True)
    assert len(list(mix.batches(4, 0, 20))) == 20
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line.startswith("skipped: ") for line in said)


def test_weights_are_one_for_each_stream(sources: tuple[Pictures, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 weights for 3 streams"):
        mix_of(made(tmp_path / "pairs", 4), sources, (1, 1))


def test_held_out_pairs_are_the_same_ones_and_of_all_kinds(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "kinds", {"cat": list(range(8)), "dog": list(range(10, 16))})
    lines = [f"cat/{n}.png" for n in range(6)] + [f"dog/{n}.png" for n in range(10, 14)]
    (tmp_path / "kinds" / "heldout.txt").write_text("\n".join(lines))
    found = merged([read_pictures(source)])
    pairs = held_out_pairs(found, 4)
    assert len(pairs) == 4
    again = held_out_pairs(merged([read_pictures(source)]), 9)
    assert len(again) == 5  # three of cats, two of dogs
    for one, other in zip(pairs, again, strict=False):
        assert np.array_equal(one.source.image, other.source.image)
        assert not np.array_equal(one.source.image, one.target.image)
    assert pairs[0].source.mask.mean() == pytest.approx(0.25, abs=0.01)
    # Without a box the keypoints', 40 px across.
    assert pairs[0].target.box_side == pytest.approx(40, abs=1e-3)
    assert held_out_pairs(found, 0) == []


def test_real_sources_give_negatives_to_most_pairs_of_coco(data: Path) -> None:
    """Found as training does, by matching a batch against itself."""
    if not (data / "coco_more").is_dir():
        pytest.skip(f"{data} has no coco_more")
    mini = data / "coco_mini"
    listed = mini / "annotations" / "instances_train2017.json"
    names = f"{listed}:{mini / 'train2017'}", f"{data / 'coco_more' / 'instances.json'}:"
    sources = [read_pictures(names[0]), read_pictures(names[1] + str(data / "coco_more/images"))]
    streams = [CategoryStream(s, size=32, stride=8) for s in merged(sources)]
    mix = MixedStream(streams, [1, 2], size=32, stride=8, kinds=80)
    batches = mix.batches(8, 0, 12)
    found = [negative_targets(batch, 1, kinds=True)[1].float().mean() for batch in batches]
    assert float(torch.stack(found).mean()) > 0.7


def test_real_held_out_pictures_are_in_no_sample(data: Path) -> None:
    if not (data / "animals").is_dir() or not (data / "classes").is_dir():
        pytest.skip(f"{data} has no animals or classes")
    animals, classes = merged([read_pictures(str(data / name)) for name in ("animals", "classes")])
    assert animals.kinds == ("cat", "cow", "dog", "horse", "sheep", *classes.kinds[5:])
    for source, name in ((animals, "animals"), (classes, "classes")):
        lines = (data / name / "heldout.txt").read_text().split()
        hashes = {file_hash(data / name / "images" / line) for line in lines}
        assert {picture.key for picture in source.held_out} == hashes
        trained = {picture.key for part in (animals, classes) for picture in part.pictures}
        assert not hashes & trained
    pairs = held_out_pairs([animals, classes], 32)
    assert len(pairs) == 32
    assert all(view.mask is not None for pair in pairs for view in (pair.source, pair.target))
    seen = [np.isfinite(pair.source.points[:, 0]).sum() for pair in pairs]
    assert sum(count >= 8 for count in seen) > 5
    assert all(pair.source.box_side > 20 for pair, count in zip(pairs, seen, strict=True) if count)
