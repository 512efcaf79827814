"""Tiny trees in the layouts of published data sets, and methods that need no network."""

import csv
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from conftest import textured
from made_known import write_sequence, write_tss
from PIL import Image
from scipy.io import savemat

from pipelines.benchmark.sets.retrieval import Search
from segswap import geometry
from segswap.files.images import read_image
from segswap.models.prediction import Prediction
from segswap.search.retrieval import Hit, Query

WIDTH, HEIGHT = 80, 60
OBJECT = (20, 10, 60, 40)  # box of what the masks show


def write_image(path: Path, look: int) -> Path:
    """A picture; those of one look are alike in colour and texture, but not the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = np.random.default_rng(zlib.crc32("/".join(path.parts[-2:]).encode()))
    tint = np.random.default_rng(1000 + look).integers(0, 120, 3)
    pixels = textured(HEIGHT, WIDTH, look) // 2 + tint + own.integers(0, 5, (HEIGHT, WIDTH, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def write_mask(path: Path, box: tuple[int, int, int, int] | None = OBJECT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if box is not None:
        mask[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(mask).save(path)
    return path


# --- trees -----------------------------------------------------------------------------------


def write_internet(root: Path) -> Path:
    """Three classes of two images; the second aeroplane's mask is empty."""
    for number, name in enumerate(("Airplane100", "Car100", "Horse100")):
        for image in range(2):
            write_image(root / name / f"{image:04d}.jpg", 10 * number + image)
            empty = number == 0 and image == 1
            write_mask(root / name / "GroundTruth" / f"{image:04d}.png", None if empty else OBJECT)
    return root


def write_coseg(root: Path) -> Path:
    """One class of three images."""
    for number in range(3):
        write_image(root / "images" / "Bus" / f"img_{number}.jpg", number)
        write_mask(root / "masks" / "Bus" / f"img_{number}.png")
    return root


def write_brueghel(root: Path) -> Path:
    """Six artworks: 0, 1, 2 look alike, 3 and 4 too; 0, 1 and 3 hold queries."""
    for number, look in enumerate((0, 0, 0, 1, 1, 2)):
        write_image(root / "Image" / f"work_{number}.png", look)
    box = list(OBJECT)
    labels = {
        "bird": [
            {
                "query": ["work_0.png", box],
                "gt": [["work_1.png", box], ["work_2.png", [0, 0, 6, 6]]],
            },
            {"query": ["work_1.png", box], "gt": [["work_0.png", box], ["work_2.png", box]]},
        ],
        "tree": [{"query": ["work_3.png", box], "gt": [["work_4.png", box]]}],
    }
    (root / "brueghelTest.json").write_text(json.dumps(labels))
    return root


def write_tokyo(root: Path) -> Path:
    """Two places of twelve views and three queries: the last one is nowhere near."""
    names = [f"03814/{place}_{view}.jpg" for place in range(2) for view in range(12)]
    for number, name in enumerate(names):
        # The list says .jpg, the files are .png.
        write_image(root / "database" / Path(name).with_suffix(".png"), number // 12)
    queries = [f"query_{number}.jpg" for number in range(3)]
    for number, name in enumerate(queries):
        write_image(root / "query" / "247query_subset_v2" / name, number % 2)
    database = np.repeat([(1000.0, 1000.0), (2000.0, 1000.0)], 12, axis=0)
    at = np.array([(1010.0, 1000.0), (2000.0, 1024.0), (9000.0, 9000.0)])
    write_positions(root / "tokyo247.mat", names, database, queries, at)
    return root


def write_pitts(root: Path) -> Path:
    """Four images of four places and two queries, at the last and at the first of them."""
    names = [f"{number:03d}/{number:06d}_pitch1_yaw1.jpg" for number in range(4)]
    for number, name in enumerate(names):
        write_image(root / name, number)
    queries = ["000/a.jpg", "001/b.jpg"]
    for name, look in zip(queries, (3, 0), strict=True):
        write_image(root / "queries_real" / name, look)
    database = np.array([(100.0 * number, 0.0) for number in range(4)])
    write_positions(root / "pitts30k_test.mat", names, database, queries, database[[3, 0]])
    return root


def write_positions(
    path: Path, names: list[str], at: np.ndarray, queries: list[str], queries_at: np.ndarray
) -> None:
    cells = [np.array([[name] for name in each], dtype=object) for each in (names, queries)]
    fields = {
        "whichSet": "test", "dbImage": cells[0], "utmDb": at.T, "qImage": cells[1],
        "utmQ": queries_at.T, "numImages": len(names), "numQueries": len(queries),
    }  # fmt: skip
    savemat(path, {"dbStruct": fields})


def write_willow(root: Path) -> Path:
    """Two pairs of ten keypoints, three of them padding; in the second pair the target's lie 3 px
    further right.
    """
    folder = root / "PF-dataset"
    x, y = np.linspace(20, 60, 10), np.linspace(10, 30, 10)
    rows = []
    for number in range(2):
        images = [f"PF-dataset/duck(S)/{number}{side}.png" for side in "ab"]
        for side, name in enumerate(images):
            write_image(root / name, 10 * number + side)
        values = np.stack([x, y, x + 3 * number, y])
        values[:, 7:] = -1
        rows.append([*images, *values.ravel()])
    head = ["imageA", "imageB", *(f"{k}{n}" for k in ("XA", "YA", "XB", "YB") for n in range(10))]
    _write_rows(folder / "test_pairs_pf.csv", [head, *rows])
    return root


def write_pascal(root: Path) -> Path:
    """One pair of three keypoints, the target's 6 px further right, and the objects' boxes."""
    folder = root / "PF-dataset-PASCAL"
    images = [f"PF-dataset-PASCAL/JPEGImages/2008_{number:06d}.jpg" for number in range(2)]
    for number, name in enumerate(images):
        write_image(root / name, number)
        note = folder / "Annotations" / "bird" / f"{Path(name).stem}.mat"
        note.parent.mkdir(parents=True, exist_ok=True)
        savemat(note, {"bbox": np.array([[5, 5, 49, 35]]), "kps": np.zeros((3, 2))})
    points = "20;40;60", "10;20;30", "26;46;66", "10;20;30"
    head = ["source_image", "target_image", "class", "XA", "YA", "XB", "YB"]
    _write_rows(folder / "test_pairs_pf_pascal.csv", [head, [*images, "3", *points]])
    return root


def _write_rows(path: Path, rows: list[list]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_spair(root: Path) -> Path:
    """One pair of two keypoints; the target's lie 4 and 7 px further right, in a box of 50 px."""
    folder = root / "SPair-71k"
    for number in range(2):
        write_image(folder / "JPEGImages" / "cat" / f"{number}.jpg", number)
    name = "000001-0-1:cat"
    content = {
        "src_imname": "0.jpg", "trg_imname": "1.jpg", "category": "cat",
        "src_kps": [[20, 20], [40, 30]], "trg_kps": [[24, 20], [47, 30]],
        "src_bndbox": [0, 0, 10, 10], "trg_bndbox": [10, 10, 60, 50],
    }  # fmt: skip
    (folder / "PairAnnotation" / "test").mkdir(parents=True)
    (folder / "PairAnnotation" / "test" / f"{name}.json").write_text(json.dumps(content))
    (folder / "Layout" / "large").mkdir(parents=True)
    (folder / "Layout" / "large" / "test.txt").write_text(f"{name}\n")
    return root


def write_davis(root: Path, folders: tuple[str, str] = ("images", "masks")) -> Path:
    """Two sequences of three frames."""
    for number, name in enumerate(("camel", "goat")):
        for frame in range(3):
            write_image(root / folders[0] / name / f"{frame:05d}.jpg", number)
            write_mask(root / folders[1] / name / f"{frame:05d}.png")
    return root


def write_kinds(root: Path, **counts: int) -> Path:
    """Pictures and masks of kinds of things, so many of each."""
    for look, (kind, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / "images" / kind / f"{number}.jpg", 10 * look + number)
            write_mask(root / "masks" / kind / f"{number}.png")
    return root


def write_animals(root: Path) -> Path:
    """Two cats and a dog to score, and another cat; boxes of 50, 84 and 25 px. Of the cats' two
    points that are seen in both, the second one's lie 4 and 7 px further right; the dog's are 2 px
    from the one cat's and 2 and 0 px from the other one's.
    """
    write_kinds(root, cat=3, dog=1)
    (root / "heldout.txt").write_text("cat/0.jpg\ncat/1.jpg\n\ndog/0.jpg\n")
    known = {
        "cat/0.jpg": ([10, 10, 60, 40], [[20, 20], [40, 30], None]),
        "cat/1.jpg": ([-4, 0, 80, 40], [[24, 20], [47, 30], [5, 5]]),
        "dog/0.jpg": ([0, 0, 25, 10], [[22, 20], None, [5, 5]]),
    }
    images = {
        name: {"width": WIDTH, "height": HEIGHT, "box": box, "points": points}
        for name, (box, points) in known.items()
    }
    content = {"keypoints": ["nose", "left_ear", "tail"], "images": images}
    (root / "keypoints.json").write_text(json.dumps(content))
    return root


def write_cosegmentation(root: Path) -> Path:
    """Five pairs within three classes, and four between two of them that share nothing."""
    return write_kinds(root, Boat=2, Bus=3, Cat=2)


def write_wxbs(root: Path) -> Path:
    """A place, 80 x 60 and 160 x 60 px, with a point at the same normalised place in both images
    and one that is 3 px further down in the second; and a place for validation.
    """
    for kind, place in (("WGBS", "church"), ("WGABS", "petrzin")):
        folder = root / kind / place
        folder.mkdir(parents=True)
        for name, width in (("01.png", WIDTH), ("02.png", 2 * WIDTH)):
            Image.fromarray(textured(HEIGHT, width, 0)).save(folder / name)
        (folder / "corrs.txt").write_text("39.5 29.5 79.5 29.5\n9.5 9.5 19.5 12.5\n")
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "internet": write_internet, "brueghel": write_brueghel, "tokyo247": write_tokyo,
    "pitts30k": write_pitts, "pf-willow": write_willow, "pf-pascal": write_pascal,
    "tss": write_tss, "spair": write_spair, "davis-retrieval": write_davis, "coseg": write_coseg,
    "oxford": write_sequence, "animals": write_animals, "cosegmentation": write_cosegmentation,
    "wxbs": write_wxbs,
}  # fmt: skip


# --- methods ---------------------------------------------------------------------------------


def same_place(source: np.ndarray, target: np.ndarray) -> Prediction:
    """Everything is where it was, and everything is shared."""
    cells = (12, 16)
    centres, full = geometry.cell_centres(*cells).astype(np.float32), np.ones(cells, np.float32)
    return Prediction(centres, centres, full, full)


class ByColour:
    """Ranks images by how near their mean colour is to the query's; finds its box in each."""

    def __init__(self, images: Sequence[str]) -> None:
        self.images = images
        self._means = [_mean(read_image(image)) for image in images]

    def search(self, query: Query, among: Sequence[int] | None = None) -> list[Hit]:
        own, nowhere = _mean(query.image), np.zeros((0, 2), np.float32)
        numbers = range(len(self.images)) if among is None else among
        mask = np.zeros((HEIGHT, WIDTH), np.float32)
        if query.box is not None:
            left, top, right, bottom = map(int, query.box)
            mask[top:bottom, left:right] = 1
        hits = [
            Hit(
                number, self.images[number], -float(np.abs(self._means[number] - own).sum()),
                query.box, mask, nowhere, nowhere,
            )
            for number in numbers
        ]  # fmt: skip
        return sorted(hits, key=lambda hit: (-hit.score, hit.number))


def _mean(image: np.ndarray) -> np.ndarray:
    return image.reshape(-1, 3).mean(0)


BY_COLOUR = Search(ByColour, ByColour)
