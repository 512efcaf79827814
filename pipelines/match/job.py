"""Match two images, say how much they share, and write down what was found."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.command.outputs import check_file, check_folder, write_json
from pipelines.match.config import MatchConfig
from segswap.files.images import encode_jpeg, encode_png, read_image
from segswap.files.storage import absolute, write_atomically

if TYPE_CHECKING:
    from segswap.models.match import Match

FORMAT = 1  # of --json; docs/matching.md describes it
MASKS = ("source.png", "target.png")


def match(config: MatchConfig) -> int:
    """Match, say how much is shared, and write what is asked for.

    Raises:
        ValueError: an image or the model cannot be read, the device is not there, or an output
            cannot be written.
        RuntimeError: the hub with the model cannot be reached, or the device's memory is too small.
    """
    _check_outputs(config)
    source, target = read_image(config.source), read_image(config.target)
    # Torch takes seconds to import, which a wrong path need not wait for.
    from pipelines.command.devices import device_of, out_of_memory_says
    from segswap.models.model import load

    model = load(config.model, device_of(config.device), size=config.size)
    with out_of_memory_says("use --device cpu, or a smaller --size"):
        found = model.match(source, target)
    told = as_json(found, config, model.settings["size"])
    if config.out:
        png = config.out.lower().endswith(".png")
        picture = found.draw(height=config.height)
        write_atomically(Path(config.out), encode_png(picture) if png else encode_jpeg(picture, 92))
    if config.json:
        write_json(config.json, told)
    if config.masks:
        folder = Path(config.masks)
        folder.mkdir(parents=True, exist_ok=True)
        for name, mask in zip(MASKS, (found.source_mask, found.target_mask), strict=True):
            write_atomically(folder / name, encode_png(np.rint(mask * 255).astype(np.uint8)))
    print(_summary(told))
    return 0


def as_json(found: "Match", config: MatchConfig, size: int) -> dict[str, Any]:
    """A match as plain values, as docs/matching.md describes them.

    Args:
        size: the side in pixels to which images were brought.
    """
    matches = found.matches(config.points)
    matrix, inliers = found.homography(config.points)
    sides = {
        role: {
            "image": image, "width": mask.shape[1], "height": mask.shape[0],
            "shared": round(float(np.mean(mask > 0.5)), 6),
        }
        for role, image, mask in (
            ("source", config.source, found.source_mask),
            ("target", config.target, found.target_mask),
        )
    }  # fmt: skip
    return {
        "format": FORMAT,
        "version": version("segswap"),
        "model": config.model,
        "size": size,
        **sides,
        "score": round(found.score, 4),
        "matches": {
            "source": matches.source.round(3).tolist(),
            "target": matches.target.round(3).tolist(),
            "confidence": matches.confidence.round(6).tolist(),
        },
        "homography": None
        if matrix is None
        else {"matrix": matrix.tolist(), "inliers": int(inliers.sum())},
    }


def _summary(told: dict[str, Any]) -> str:
    """The line that is printed of what `as_json` tells."""
    sides = (told["source"], told["target"])
    shared = ", ".join(f"{side['shared']:.1%} of {side['image']}" for side in sides)
    fitted = told["homography"]
    return (
        f"score {told['score']:.1f}; shared {shared}; "
        f"{len(told['matches']['confidence'])} matches"
        + (f", {fitted['inliers']} in one homography" if fitted else "")
    )


def _check_outputs(config: MatchConfig) -> None:
    """Refuse names that cannot be written under, and those of the images.

    Raises:
        ValueError: as `check_file` and `check_folder`, or an output would replace an image.
    """
    check_file("--out", config.out)
    check_file("--json", config.json)
    check_folder("--masks", config.masks)
    masks = [str(Path(config.masks, name)) for name in MASKS] if config.masks else []
    outputs = [("--out", config.out), ("--json", config.json), *(("--masks", m) for m in masks)]
    for flag, place in outputs:
        for image in (config.source, config.target):
            if place and absolute(place) == absolute(image):
                raise ValueError(f"{flag} would write {place} over the image; choose another name")
