"""Every page as it is made where all that names something has one name."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
from conftest import textured
from made_pairs import pasted_pair, write_dataset

from pipelines.pages.gallery import gallery_page, pair_view
from pipelines.pages.groups import Shown, groups_page
from pipelines.pages.hits import hits_page
from pipelines.pages.report import write_report
from segswap.data.pair import Pair, PairObject
from segswap.data.shards import encode_pair
from segswap.discovery.discovery import SharedPoints
from segswap.evaluation.metrics import Scores
from segswap.files.images import encode_jpeg, encode_png
from segswap.matchers.semantic.semantic import SemanticMatcher
from segswap.search.retrieval import Hit, Query

HOSTILE = {
    "a script": "<script>document.title=1<!--",
    "quotes": """a"b'c`d><img src=x onerror=alert(1)>""",
    "a template": "{{ 7 * 7 }}{% if %}{# gone #}{}%s%(x)d",
    "an entity": "&lt;b&gt;&amp;&quot;",
    "no UTF-8": "caf\udce9.png",
    "other letters": "日本語 \u202e ümläut",
    "a table's bar": "a|b\\|c",
}


def named_pair(name: str) -> Pair:
    """A pair with all that names something named so."""
    made = pasted_pair(styled=True)
    origin = {"dataset": name, "image": name}
    item = PairObject(1, made.objects[0].target_from_source, name, origin, name)
    style = {"method": name, "image": name, name: name}
    return Pair(
        0, made.source, made.target, made.source_mask, made.target_mask, (item,),
        background=origin, source_styled=made.source_styled, target_styled=made.target_styled,
        styles={"source": style, "target": style},
    )  # fmt: skip


def gallery(name: str, folder: Path) -> str:
    pair = named_pair(name)
    members = {key.partition(".")[2]: data for key, data in encode_pair(pair).items()}
    return gallery_page(name, name, [pair_view(pair, members)])


def hits(name: str, folder: Path) -> str:
    image = folder / name / name
    image.parent.mkdir()
    image.write_bytes(encode_png(textured(60, 80, 0)))
    points = np.float32([[10, 10], [60, 50]])
    mask = np.ones((6, 8), np.float32)
    found = Hit(0, str(image), 1.0, (5.0, 5.0, 70.0, 55.0), mask, points, points)
    gone = Hit(1, f"{name}/{name}", 0.0, None, None, points[:0], points[:0])
    return hits_page(Query(textured(60, 80, 1)), name, [found, gone], 2)


def groups(name: str, folder: Path) -> str:
    (folder / "pictures").mkdir()
    for number in (0, 1):
        picture = encode_jpeg(textured(60, 80, number), 85)
        (folder / "pictures" / f"{number}.jpg").write_bytes(picture)
    shown = [Shown(n, name, f"pictures/{n}.jpg", (80, 60), "M0 0Z", 1.0) for n in (0, 1)]
    shared = [SharedPoints((0, 1), np.zeros((2, 2, 2), np.float32))]
    return groups_page(name, [(shown, shared)], 2, 2, [(name, name)])


class Finds:
    """A model that finds nothing, and a prediction of it."""

    matcher = SemanticMatcher  # pictures of kinds are shown of it, too

    def predict(self, *images: np.ndarray) -> "Finds":
        return self

    def draw(self, *images: np.ndarray, height: int) -> np.ndarray:
        return np.zeros((height, 2 * height, 3), np.uint8)


def report(name: str, folder: Path) -> str:
    dataset = write_dataset(folder / "pairs", [named_pair(name)], [named_pair(name)])
    (folder / "run").mkdir()
    (folder / "run" / "curves.png").write_bytes(encode_png(textured(60, 80, 2)))
    rows = {name: Scores(**{field.name: 0.5 for field in fields(Scores)})}
    page = write_report(
        folder, Path(dataset), folder / "run", {name: Finds()},  # type: ignore[dict-item]
        {"pairs": rows, "stereo": rows}, [name],
    )  # fmt: skip
    return page.read_bytes().decode()


# Each makes a page with a name in an empty folder, and the pictures that it needs beside it.
PAGES: dict[str, Callable[[str, Path], str]] = {
    "gallery": gallery, "hits": hits, "groups": groups, "report": report,
}  # fmt: skip
