"""What a COCO instances JSON says, checked: whoever reads one reads it here.

What the file as a whole lacks is an error. An image or an annotation that is wrong costs itself
alone, and is listed. No annotation is taken for another image's: where an id stands for two
images, neither is used. What can be used, though not as it is written, is counted.
"""

import json
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from segswap.files.images import ImageError
from segswap.files.located import locate
from segswap.files.opening import UnreadableError, open_regular
from segswap.files.records import kind_of, short
from segswap.files.storage import PathLike

Skipped = list[dict[str, Any]]
_LARGEST_ID = 2**63 - 1  # what pairs' records, and NumPy, can hold


class CocoImage(NamedTuple):
    """An image that is listed, whether its file is there or not.

    Attributes:
        name: path of its file, relative to the folder of the images.
        width, height: in pixels, of the frame in which it was annotated.
        entries: what the file says of it; several where it is listed several times.
    """

    name: str
    width: int
    height: int
    entries: tuple[dict[str, Any], ...]


class Annotation(NamedTuple):
    """One object in one image.

    Attributes:
        number: its place in the file.
        id: its own; None where that is missing or of no use.
        image: position of its image in `Coco.images`.
        category: position of its category in `Coco.categories`.
        crowd: whether it is many things in one.
        segmentation, keypoints: as the file has them, not checked.
    """

    number: int
    id: int | None
    image: int
    category: int
    crowd: bool
    segmentation: Any
    keypoints: Any

    def named(self, coco: "Coco") -> dict[str, Any]:
        """What a list of what is skipped calls it."""
        name = _annotation_name(self.number, self.id)
        return {"image": coco.images[self.image].name, "annotation": name}


@dataclass(frozen=True)
class Coco:
    """What can be used of a COCO file.

    Attributes:
        images: in the order of their names.
        annotations: those of these images.
        categories: names, each once.
        keypoints: names of the keypoints of the first category that has some.
        licences: name and address by id, None where an id stands for two of them.
        skipped: images and annotations that cannot be used, with what is wrong.
        corrected: how often something was not as it should be, and used all the same.
    """

    images: list[CocoImage]
    annotations: list[Annotation]
    categories: list[str]
    keypoints: tuple[str, ...]
    licences: dict[str, tuple[str, str] | None]
    skipped: Skipped = field(default_factory=list)
    corrected: Counter[str] = field(default_factory=Counter)


def read_coco(annotations: PathLike, folder: PathLike) -> Coco:
    """Read a COCO instances JSON, whose images lie in a folder or below a URL.

    Raises:
        ValueError: it is no such file; the message names the file and the key.
    """
    try:
        with open_regular(annotations) as file:
            content = json.loads(file.read())
    except UnreadableError as error:
        raise ValueError(
            f"{annotations} is {error.reason}; expected a COCO instances JSON"
            if error.reason == "missing"
            else f"{error}; expected a COCO instances JSON"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{annotations} is not a readable JSON file: {error}") from error
    try:
        return _Reader(content, folder).coco
    except _WrongError as error:
        raise ValueError(f"{annotations}: {error}; expected a COCO instances JSON") from error


class _WrongError(ValueError):
    """The file as a whole cannot be used."""


class _Reader:
    """Goes through a file's content once, in the order in which one part needs another."""

    def __init__(self, content: Any, folder: PathLike) -> None:
        if not isinstance(content, dict):
            raise _WrongError(f"it is {kind_of(content)}, no object with lists images, annotations "
                              "and categories")  # fmt: skip
        self.skipped: Skipped = []
        self.corrected: Counter[str] = Counter()
        self.folder = folder
        self.categories: list[str] = []
        self.category_of = self._categories(_listed(content, "categories"))
        licences = self._licences(_listed(content, "licenses", optional=True))
        self.images: list[CocoImage] = []
        self.image_of = self._images(_listed(content, "images"))
        listed = list(self._annotations(_listed(content, "annotations")))
        self.coco = Coco(
            self.images, listed, self.categories, _keypoints(content["categories"]), licences,
            self.skipped, self.corrected,
        )  # fmt: skip

    # --- categories and licences -------------------------------------------------------------

    def _categories(self, raw: list[Any]) -> dict[int | str, int | None]:
        """Positions of the categories by id; None for an id that stands for two of them."""
        positions: dict[str, int] = {}
        found: dict[int | str, int | None] = {}
        for number, one in enumerate(raw):
            name, own = _get(one, "name"), _identity(_get(one, "id"))
            if not isinstance(name, str):
                raise _WrongError(f"categories[{number}] has no valid 'name', which is text")
            if own is None:
                raise _WrongError(f"categories[{number}] has no valid 'id', a number or text")
            key = unicodedata.normalize("NFC", name).strip().casefold()
            if key not in positions:
                positions[key] = len(self.categories)
                self.categories.append(name)
            elif found.get(own) != positions[key]:
                self.corrected[f"further ids of the category {name}"] += 1
            same = found.get(own, positions[key]) == positions[key]
            found[own] = positions[key] if same else None
        return found

    def _licences(self, raw: list[Any]) -> dict[str, tuple[str, str] | None]:
        found: dict[str, tuple[str, str] | None] = {}
        for number, one in enumerate(raw):
            if not isinstance(one, dict):
                raise _WrongError(f"licenses[{number}] is {kind_of(one)}, not an object")
            name, url = (str(one.get(key) or "") for key in ("name", "url"))
            own, told = str(one.get("id")), (name or url or "not stated", url)
            found[own] = told if found.get(own, told) == told else None
        return found

    # --- images ------------------------------------------------------------------------------

    def _images(self, raw: list[Any]) -> dict[int | str, int | None]:
        """Positions of the images by id; None for those that cannot be used."""
        usable: dict[int | str, list[tuple[str, int, int, dict[str, Any]]]] = {}
        found: dict[int | str, int | None] = {}
        order = sorted(range(len(raw)), key=lambda n: (str(_get(raw[n], "file_name")), n))
        for number in order:
            own = _identity(_get(raw[number], "id"))
            try:
                entry = (*self._image(raw[number], number), raw[number])
            except ImageError as error:
                self.skipped.append({"image": error.name, "reason": error.reason})
                if own is not None:
                    found[own] = None  # known: its annotations are not listed, too
                continue
            assert own is not None
            usable.setdefault(own, []).append(entry)
        same: dict[tuple[str, int, int], list[tuple[int | str, str, dict[str, Any]]]] = {}
        for own, listed in usable.items():
            keys = {(posixpath.normpath(name), width, height) for name, width, height, _ in listed}
            if len(keys) > 1 or own in found:
                self._refuse(own, [name for name, *_ in listed])
                found[own] = None
            else:
                same.setdefault(keys.pop(), []).extend((own, e[0], e[3]) for e in listed)
        # Entries of one file are one image.
        for (_, width, height), one in sorted(same.items(), key=lambda item: item[1][0][1]):
            found.update({own: len(self.images) for own, *_ in one})
            entries = tuple(entry for *_, entry in one)
            self.images.append(CocoImage(one[0][1], width, height, entries))
            if len(one) > 1:
                self.corrected["further entries of one image"] += len(one) - 1
        return found

    def _image(self, one: Any, number: int) -> tuple[str, int, int]:
        """Name, width and height of an image."""
        place = f"images[{number}]"
        if not isinstance(one, dict):
            raise ImageError(place, f"{place} is {kind_of(one)}, not an object")
        name = one.get("file_name")
        if not isinstance(name, str):
            raise ImageError(place, f"{place} has no valid 'file_name', which is text")
        if _identity(one.get("id")) is None:
            raise ImageError(name, f"{place} has no valid 'id', a number or text")
        sides = []
        for key in ("width", "height"):
            side = _integer(one.get(key))
            if side is None or not 0 < side < 1 << 31:
                raise ImageError(name, f"{place} has no valid {key!r}, a number of pixels")
            sides.append(side)
        return locate(self.folder, name), sides[0], sides[1]

    def _refuse(self, own: int | str, names: list[str]) -> None:
        distinct = sorted(set(names))
        for name in distinct:
            others = [other for other in distinct if other != name][:2]
            whose = " and ".join(others) or "another entry"
            reason = f"its id {short(own)} is that of {whose}, too; give every image its own"
            self.skipped.append({"image": name, "reason": reason})

    # --- annotations -------------------------------------------------------------------------

    def _annotations(self, raw: list[Any]) -> Iterator[Annotation]:
        seen: set[int] = set()
        for number, one in enumerate(raw):
            stated = _get(one, "id")
            own = _integer(stated)
            if own is not None and not -_LARGEST_ID <= own <= _LARGEST_ID:
                own = None
            try:
                found = self._annotation(one, number, own)
            except _EntryError as error:
                entry: dict[str, Any] = {"annotation": _annotation_name(number, own)}
                if error.image is not None:
                    entry = {"image": self.images[error.image].name, **entry}
                self.skipped.append({**entry, "reason": str(error)})
                continue
            if found is None:
                continue
            if own is None:
                self.corrected[f"annotations whose id is {_useless(stated)}"] += 1
            elif own in seen:
                self.corrected["annotations whose id is another's, too"] += 1
            else:
                seen.add(own)
            yield found

    def _annotation(self, one: Any, number: int, own: int | None) -> Annotation | None:
        """None where its image cannot be used, which is listed itself."""
        if not isinstance(one, dict):
            raise _EntryError(f"it is {kind_of(one)}, not an object")
        of = _identity(one.get("image_id"))
        if of is None or of not in self.image_of:
            raise _EntryError(f"its image is unknown (image_id {short(one.get('image_id'))})")
        image = self.image_of[of]
        if image is None:
            return None
        kind = _identity(one.get("category_id"))
        said = f"its category_id {short(one.get('category_id'))}"
        if kind is None or kind not in self.category_of:
            raise _EntryError(f"{said} is none of the categories' ids", image)
        category = self.category_of[kind]
        if category is None:
            raise _EntryError(f"{said} is the id of several categories", image)
        crowd = one.get("iscrowd")
        if crowd not in (None, 0, 1):
            raise _EntryError(f"its iscrowd is {short(crowd)}, neither 0 nor 1", image)
        return Annotation(
            number, own, image, category, bool(crowd), one.get("segmentation"),
            one.get("keypoints"),
        )  # fmt: skip


class _EntryError(ValueError):
    """An annotation that cannot be used, and the position of its image where that is known."""

    def __init__(self, reason: str, image: int | None = None) -> None:
        super().__init__(reason)
        self.image = image


def _useless(own: Any) -> str:
    """Why an annotation's id cannot be kept."""
    if own is None:
        return "missing"
    if _integer(own) is not None:
        return "too large"
    return "no whole number" if isinstance(own, float) else kind_of(own)


def _annotation_name(number: int, own: int | None) -> int | str:
    return f"annotations[{number}]" if own is None else own


def _get(one: Any, key: str) -> Any:
    return one.get(key) if isinstance(one, dict) else None


def _listed(content: dict[str, Any], key: str, optional: bool = False) -> list[Any]:
    value = content.get(key)
    if value is None and optional:
        return []
    if not isinstance(value, list):
        said = f"{key!r} is {kind_of(value)}, not a list"
        raise _WrongError(said if key in content else f"it has no list {key!r}")
    return value


def _integer(value: Any) -> int | None:
    """A whole number, as which some programs write 5.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _identity(value: Any) -> int | str | None:
    """What an id is compared by; None for what is none."""
    return value if isinstance(value, str) else _integer(value)


def _keypoints(categories: list[Any]) -> tuple[str, ...]:
    for number, one in enumerate(categories):
        if names := one.get("keypoints"):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise _WrongError(f"categories[{number}] has no valid 'keypoints', a list of names")
            return tuple(names)
    return ()
