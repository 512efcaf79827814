"""Pairs with known correspondences, in the layouts of planar sequences and of TSS."""

from pathlib import Path

import cv2
import numpy as np
from conftest import textured
from PIL import Image

# Pixels to pixels, with a horizon far outside of the image.
HOMOGRAPHY = np.array([[0.8, -0.2, 30], [0.15, 0.9, -5], [4e-4, -2e-4, 1]])
MOVED = np.array([[1.0, 0, 20], [0, 1, 10], [0, 0, 1]])
SHIFT = (12, -8)  # of the object, in pixels


def write_sequence(folder: Path, kind: str = "oxford") -> Path:
    """A textured image and two others made of it, through HOMOGRAPHY and MOVED."""
    folder.mkdir(parents=True)
    first = textured(150, 200, 0)
    image, matrix = {
        "oxford": ("img{}.png", "H1to{}p"), "hpatches": ("{}.ppm", "H_1_{}")
    }[kind]  # fmt: skip
    Image.fromarray(first).save(folder / image.format(1))
    for number, homography in ((2, HOMOGRAPHY), (3, MOVED)):
        other = cv2.warpPerspective(first, homography, (220, 160))
        Image.fromarray(other).save(folder / image.format(number))
        np.savetxt(folder / matrix.format(number), homography)
    return folder


def write_flo(path: Path, flow: np.ndarray) -> None:
    sizes = np.array(flow.shape[1::-1], "<i4").tobytes()
    path.write_bytes(np.float32(202021.25).tobytes() + sizes + flow.astype("<f4").tobytes())


def write_tss(root: Path, flipped: bool = False, flo: bool = False) -> Path:
    """One pair: an object that lies SHIFT further in image 2, which is larger, or in its mirrored
    form. As in the data set, flow 2 goes from image 2 as it is to image 1 mirrored.
    """
    folder = root / "cars" / "one"
    folder.mkdir(parents=True)
    x, y = SHIFT
    first, second = textured(120, 160, 0), textured(140, 200, 1)
    second[40 + y : 90 + y, 50 + x : 110 + x] = first[40:90, 50:110]
    masks = np.zeros((120, 160), np.uint8), np.zeros((140, 200), np.uint8)
    masks[0][40:90, 50:110] = 255
    masks[1][40 + y : 90 + y, 50 + x : 110 + x] = 255
    flows = [np.full((*mask.shape, 2), 1e10, np.float32) for mask in masks]
    flows[0][masks[0] > 0] = SHIFT
    flows[1][masks[1] > 0] = (-x, -y)
    if flipped:
        second, target_mask = second[:, ::-1], masks[1][:, ::-1]
        masks = masks[0], target_mask
        # In image 2 as it is now, and in image 1 mirrored, the object went the other way in x.
        flows[1] = flows[1][:, ::-1].copy()
        columns = np.arange(200)[None, :].repeat(140, axis=0)
        there = 159 - ((199 - columns) - x)
        flows[1][..., 0] = np.where(target_mask > 0, there - columns, 1e10)
    for number, (image, mask, flow) in enumerate(
        zip((first, second), masks, flows, strict=True), 1
    ):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"image{number}.png")
        Image.fromarray(np.ascontiguousarray(mask)).save(folder / f"mask{number}.png")
        if flo:
            write_flo(folder / f"flow{number}.flo", flow)
        else:
            np.savez(folder / f"flow{number}.npz", flow=flow)
    (folder / "flip_gt.txt").write_text(f"{int(flipped)}\n")
    return root
