"""The page of segswap-discover: groups of regions that repeat, and the points that they share.

It needs no server: the pictures lie beside it, everything else is inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.pages.pictures import colour
from pipelines.pages.render import render
from segswap.discovery.discovery import SharedPoints


@dataclass(frozen=True)
class Shown:
    """A member as the page shows it.

    Attributes:
        image: its number in the collection.
        name: of its file.
        picture: path of a small copy, relative to the page.
        size: width and height of that in pixels.
        outline: of its region, an SVG path in the small copy's pixels; see `pictures.outline`.
        strength: 0 to 1.
    """

    image: int
    name: str
    picture: str
    size: tuple[int, int]
    outline: str
    strength: float


def groups_page(
    title: str, groups: Sequence[tuple[Sequence[Shown], Sequence[SharedPoints]]],
    images: int, least_images: int, skipped: Sequence[tuple[str, str]],
) -> str:  # fmt: skip
    """A whole page.

    Args:
        title: its heading.
        groups: members and what pairs of them share, of each group.
        images: in the collection.
        least_images: that a group must have.
        skipped: path and reason of images that could not be read.
    """
    return render(
        "groups.html", title=title, images=images, least_images=least_images, skipped=skipped,
        groups=[_group(number, *group) for number, group in enumerate(groups, 1)],
    )  # fmt: skip


def _group(number: int, members: Sequence[Shown], shared: Sequence[SharedPoints]) -> dict[str, Any]:
    """What groups.html shows of a group."""
    links = [
        {"images": list(pair.images), "points": pair.points.reshape(-1, 4).round(4).tolist()}
        for pair in shared
    ]
    return {"colour": colour(number), "members": members, "links": links}
