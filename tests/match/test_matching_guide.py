"""docs/matching.md: its commands and its Python run as they stand, also behind vismatch."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from generators.sources.photos import photos
from pipelines.match.config import main
from segswap.files.images import read_image

GUIDE = (Path(__file__).parents[2] / "docs" / "matching.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)


PLAIN = [text for text in blocks("python") if "vismatch" not in text]
(WRAPPER,) = (text for text in blocks("python") if "vismatch" in text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the two images that the guide names."""
    images = photos()[1]
    shutil.copy(images / "motorcycle_left.png", tmp_path / "a.jpg")
    shutil.copy(images / "motorcycle_right.png", tmp_path / "b.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_runs(folder: Path) -> None:
    assert len(PLAIN) == 2
    names: dict[str, Any] = {}
    for text in PLAIN:
        exec(text, names)
    assert len(names["found"]) == 1000
    assert names["same"].mean() > 0.5
    assert names["matrix"].shape == (3, 3)
    assert names["aligned"].shape == names["m"].target_image.shape
    assert names["picture"].shape[0] == 320


def test_the_commands_run_and_write_what_the_guide_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (commands,) = blocks("bash")
    assert commands.count("\n") == 2
    for command in commands.splitlines():
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    assert {path.name for path in folder.iterdir()} == {
        "a.jpg", "b.jpg", "picture.png", "matches.json", "masks"
    }  # fmt: skip
    told = json.loads((folder / "matches.json").read_text())
    (shown,) = map(json.loads, blocks("json"))
    assert keys(told) == keys(shown)
    assert (told["format"], told["version"]) == (shown["format"], shown["version"])
    assert len(told["matches"]["source"]) == 500


def keys(value: Any) -> Any:
    """The names of a JSON object's values, and of theirs."""
    return {name: keys(own) for name, own in value.items()} if isinstance(value, dict) else None


# --- behind vismatch -------------------------------------------------------------------------


class BaseMatcher(torch.nn.Module):
    """What vismatch 1.4 asks of a matcher: it is not installed, as it brings opencv-python."""

    def __init__(self, device: str = "cpu", **kwargs: Any) -> None:
        super().__init__()
        self.device = device
        self.options = kwargs

    @torch.inference_mode()
    def forward(self, img0: str | Tensor, img1: str | Tensor) -> dict[str, Any]:
        images = [as_tensor(image).to(self.device) for image in (img0, img1)]
        outputs = self._forward(*images)
        assert len(outputs) == 7
        assert all(v is None or isinstance(v, np.ndarray | Tensor) for v in outputs)
        first, second, _, _, first_desc, second_desc, confidences = outputs
        assert first_desc is None
        assert second_desc is None
        assert first.ndim == 2
        assert first.shape == second.shape == (len(confidences), 2)
        inside = [
            ((points >= 0) & (points < image.shape[:0:-1])).all(1)
            for points, image in zip((first, second), images, strict=True)
        ]
        kept = inside[0] & inside[1]
        return {
            "matched_kpts0": first[kept], "matched_kpts1": second[kept],
            "matched_confidences": confidences[kept], "H": None, "num_inliers": 0,
        }  # fmt: skip


def as_tensor(image: str | Tensor) -> Tensor:
    """float32 (3, H, W) in [0, 1], as vismatch reads an image."""
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(read_image(image)).permute(2, 0, 1).float() / 255


@pytest.fixture
def names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the guide's wrapper defines, with the result that it ends in."""
    stub = ModuleType("vismatch")
    monkeypatch.setattr(stub, "BaseMatcher", BaseMatcher, raising=False)
    monkeypatch.setitem(sys.modules, "vismatch", stub)
    defined: dict[str, Any] = {}
    exec(WRAPPER, defined)
    return defined


def test_the_wrapper_answers_as_vismatch_asks(names: dict[str, Any]) -> None:
    result = names["result"]
    found = names["segswap"].load().match("a.jpg", "b.jpg").matches(2048)
    points: NDArray[np.float64] = result["matched_kpts0"]
    assert 0.95 * len(found) < len(points) <= len(found)
    # The same matches as without vismatch, but for those in the outermost half pixel.
    own = {tuple(point) for point in found.source.round(6)}
    assert {tuple(point) for point in points.round(6)} <= own
    assert result["matched_confidences"].max() <= 1


def test_the_wrapper_takes_vismatchs_options_and_images_beyond_the_range(
    names: dict[str, Any],
) -> None:
    matcher = names["SegswapMatcher"](
        "cpu", max_num_keypoints=50, model="segswap-tiny", ransac_iters=7
    )
    assert matcher.options == {"ransac_iters": 7}
    # As after resizing with a bicubic kernel.
    image = as_tensor("a.jpg") * 1.2 - 0.1
    result = matcher(image, image)
    assert 45 <= len(result["matched_kpts0"]) <= 50
    off = np.abs(result["matched_kpts0"] - result["matched_kpts1"])
    assert np.median(off) < 2
    blank = torch.zeros(3, 60, 80)
    assert matcher(blank, blank)["matched_kpts0"].shape == (0, 2)
