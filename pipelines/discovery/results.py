"""What a discovery left in its folder, for whoever goes on from there in Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.discovery.discovered import GROUPS, PAGE
from segswap.files.images import read_labels
from segswap.files.records import NONE, Schema, all_checked, check_inside, read_record

_RECORD: Schema = {"images": (list,), "skipped": (list,), "groups": (list,)}
_IMAGE: Schema = {"image": (str,), "width": (int,), "height": (int,), "mask": (str, NONE)}
_GROUP: Schema = {"strength": (float,), "members": (list,)}
_MEMBER: Schema = {"image": (int,), "strength": (float,), "mask": (str,), "box": (list,)}


@dataclass(frozen=True)
class FoundMember:
    """One image's region of a group.

    Attributes:
        image: path of the image.
        strength: how much of the group's agreement lies in it, 1 for the strongest member.
        box: left, top, right and bottom of the region in the image's pixels.
        mask_file: a PNG of the image's size, 255 in the region.
    """

    image: str
    strength: float
    box: tuple[int, int, int, int]
    mask_file: Path

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The region: bool (H, W) at the image's size; read when it is asked for."""
        return _read_mask(self.mask_file)


@dataclass(frozen=True)
class FoundGroup:
    """Regions of several images that show the same.

    Attributes:
        strength: see `segswap.discovery.discovery.Group`.
        members: strongest first.
    """

    strength: float
    members: list[FoundMember]


@dataclass(frozen=True)
class Discovered:
    """What repeats in a collection, as segswap-discover writes it into a folder.

    Attributes:
        folder: where it lies.
        record: groups.json, which also has the points that members share.
        pairs: how many pairs of images were matched.
    """

    folder: Path
    record: dict[str, Any]
    pairs: int

    @classmethod
    def read(cls, folder: Path, pairs: int) -> "Discovered":
        """What a folder holds.

        Raises:
            ValueError: groups.json is damaged, or names files elsewhere.
            OSError: it cannot be read.
        """
        path = folder / GROUPS
        record = read_record(path, _RECORD)
        images = all_checked(record["images"], _IMAGE, f"{path}: images")
        all_checked(record["skipped"], {"image": (str,), "reason": (str,)}, f"{path}: skipped")
        masks = [image["mask"] for image in images if image["mask"] is not None]
        groups = all_checked(record["groups"], _GROUP, f"{path}: groups")
        for number, group in enumerate(groups):
            said = f"{path}: groups[{number}].members"
            for member in all_checked(group["members"], _MEMBER, said):
                if len(all_checked(member["box"], (float,), f"{said}: box")) != 4:
                    raise ValueError(f"{said}: a box is {member['box']}; expected 4 numbers")
                if not 0 <= member["image"] < len(images):
                    raise ValueError(f"{said}: there is no image {member['image']}")
                masks.append(member["mask"])
        for mask in masks:
            check_inside(mask, f"{path}: a mask")
        return cls(folder, record, pairs)

    @property
    def page(self) -> Path:
        """The page that shows the groups."""
        return self.folder / PAGE

    @property
    def images(self) -> list[str]:
        """Paths of the images that were read."""
        return [item["image"] for item in self.record["images"]]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Path and reason of those that could not be read."""
        return [(item["image"], item["reason"]) for item in self.record["skipped"]]

    @property
    def groups(self) -> list[FoundGroup]:
        """The things that repeat, those in most images first."""
        return [
            FoundGroup(group["strength"], [self._member(each) for each in group["members"]])
            for group in self.record["groups"]
        ]

    def mask(self, image: int) -> NDArray[np.bool_] | None:
        """What an image, by its number, shares with the one thing that the collection shares most:
        bool (H, W) at its size; None where it has no part in it.
        """
        name = self.record["images"][image]["mask"]
        return None if name is None else _read_mask(self.folder / name)

    def _member(self, member: dict[str, Any]) -> FoundMember:
        left, top, right, bottom = member["box"]
        return FoundMember(
            self.images[member["image"]], member["strength"], (left, top, right, bottom),
            self.folder / member["mask"],
        )  # fmt: skip

    def __str__(self) -> str:
        counts = ", ".join(str(len(group["members"])) for group in self.record["groups"])
        number = len(self.record["groups"])
        said = f"{number} groups, of {counts} images" if number else "nothing that repeats"
        return f"{self.page}: {said}; {len(self.images)} images, {self.pairs} pairs"


def _read_mask(path: Path) -> NDArray[np.bool_]:
    return read_labels(path.read_bytes(), name=str(path)) > 0
