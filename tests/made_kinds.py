"""Small pictures of kinds of things, in folders and as COCO lists them, for tests."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from conftest import textured

HEIGHT, WIDTH = 80, 120
BOX = (30, 20, 90, 60)  # what the masks show
NAMES = ["left_eye", "right_eye", "nose"]
POINTS = [[40.0, 30.0], [80.0, 30.0], [60.0, 50.0]]


def write_picture(path: Path, seed: int) -> None:
    """A texture with a disc at each of POINTS: red, green and blue."""
    image = textured(HEIGHT, WIDTH, seed) // 3
    for point, colour in zip(POINTS, np.eye(3), strict=True):
        centre = tuple(int(value) for value in point)
        cv2.circle(image, centre, 4, (255 * colour).tolist(), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def write_folder(root: Path, kinds: dict[str, list[int]], keypoints: bool = True) -> str:
    """Pictures of seeds for each kind, with masks and keypoints."""
    images: dict[str, Any] = {}
    for kind, seeds in kinds.items():
        for seed in seeds:
            write_picture(root / "images" / kind / f"{seed}.png", seed)
            images[f"{kind}/{seed}.png"] = {"width": WIDTH, "height": HEIGHT, "points": POINTS}
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
            (root / "masks" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "masks" / kind / f"{seed}.png"), mask)
    if keypoints:
        content = {"keypoints": NAMES, "images": images}
        (root / "keypoints.json").write_text(json.dumps(content))
    return str(root)


def write_coco(folder: Path) -> str:
    """Four pictures: two of a cat, one of a dog, one of both; a further one is listed and gone."""
    x0, y0, x1, y1 = BOX
    polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
    for number in range(4):
        write_picture(folder / "photos" / f"{number}.png", number)
    images = [
        {"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(5)
    ]
    kinds = [(0, 1), (1, 1), (2, 2), (3, 1), (3, 2), (4, 1)]
    seen = [value for x, y in POINTS for value in (x, y, 2)]
    annotations = [
        {"id": n, "image_id": image, "category_id": kind, "segmentation": [polygon],
         "keypoints": seen if kind == 1 else [], "iscrowd": 0}
        for n, (image, kind) in enumerate(kinds)
    ]  # fmt: skip
    categories = [
        {"id": 1, "name": "cat", "keypoints": NAMES}, {"id": 2, "name": "dog"},
        {"id": 3, "name": "boat"},
    ]  # fmt: skip
    path = folder / "instances.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return f"{path}:{folder / 'photos'}"
