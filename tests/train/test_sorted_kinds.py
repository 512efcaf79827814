"""Pictures with masks, sorted by what the thing is."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import chelsea, coffee

from pipelines.training.kinds import KindsConfig, kinds_of_classes, main, sort_into_kinds
from segswap.batches.pictures import read_pictures


def write(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for part, content in (("images", image[..., ::-1]), ("masks", mask)):
        (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / part / f"{name}.png"), content)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures of a cat, one in a folder below, and two of a cup; masks around the things."""
    for name, image, box in (
        ("cat", chelsea(), (60, 10, 380, 290)), ("cup", coffee(), (130, 40, 480, 340))
    ):  # fmt: skip
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.rectangle(mask, box[:2], box[2:], 255, -1)
        write(tmp_path, name, image, mask)
        write(tmp_path, f"mirrored/{name}", image[:, ::-1], mask[:, ::-1])
    return tmp_path


def config(pictures: Path, **changed: object) -> KindsConfig:
    settings = {"least": 2, "confidence": 0.3, **changed}
    return KindsConfig(
        pictures / "images",
        pictures / "masks",
        pictures / "out",
        **settings,  # type: ignore[arg-type]
    )


def test_cats_and_cups_are_told_apart_and_can_be_trained_on(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(pictures / name) for name in ("images", "masks", "out")]
    given = [*folders[:2], "--out", folders[2], "--least", "2", "--confidence", "0.3"]
    monkeypatch.setattr(sys, "argv", ["kinds", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "4 of 4 pictures, 2 kinds" in capsys.readouterr().out
    found = read_pictures(str(pictures / "out"))
    assert len(found.kinds) == 2
    assert [int((picture.labels == 1).sum()) for picture in found.pictures] == [1] * 4
    assert all(picture.masks for picture in found.pictures)
    for kind in (pictures / "out" / "images").iterdir():  # the cat's are 300 px high, the cup's 400
        assert len({cv2.imread(str(path)).shape for path in kind.iterdir()}) == 1


def test_alike_classes_are_one_kind() -> None:
    weights = np.eye(4).repeat(3, axis=0) + np.random.default_rng(0).normal(0, 0.01, (12, 4))
    kinds = kinds_of_classes(weights, 4)
    assert len(set(kinds)) == 4
    assert (kinds.reshape(4, 3) == kinds[::3, None]).all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kinds": 1}, "--kinds is 1"),
        ({"confidence": 0}, "--confidence is 0"),
        ({"least": 1}, "--least is 1"),
    ],
)
def test_settings_out_of_range_are_named(pictures: Path, changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(pictures, **changed)


def test_bad_folders_and_masks_are_named(pictures: Path) -> None:
    (pictures / "masks" / "cup.png").unlink()
    with pytest.raises(ValueError, match=r"cup\.png"):
        sort_into_kinds(config(pictures))
    cv2.imwrite(str(pictures / "masks" / "cup.png"), np.zeros((400, 600), np.uint8))
    with pytest.raises(ValueError, match="is empty"):
        sort_into_kinds(config(pictures))
    cv2.imwrite(str(pictures / "masks" / "cup.png"), np.full((40, 60), 255, np.uint8))
    with pytest.raises(ValueError, match="its mask 60 x 40"):
        sort_into_kinds(config(pictures))
    (pictures / "out").mkdir()
    (pictures / "out" / "mine").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        sort_into_kinds(config(pictures))


def test_no_sure_kind_is_an_error(pictures: Path) -> None:
    with pytest.raises(ValueError, match="lower --confidence"):
        sort_into_kinds(config(pictures, least=3))
