"""An index: the features of a collection's images on disk, read memory-mapped.

`index_files` says what files there are.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segswap.files.arrays import map_array
from segswap.files.images import ImageError, pixel_hash, read_image
from segswap.matchers.encoding import Encoding
from segswap.models.model import Model
from segswap.search.index_files import (
    are_entries,
    compared_file,
    encoded_file,
    images_file,
    read_settings,
    read_shard_record,
    record_file,
    state_of,
    vectors_file,
)

_CHUNK = 1 << 16  # descriptors compared at a time: what of the file is in memory


class Index:
    """A finished index. Nothing but what is asked for is read into memory.

    Attributes:
        folder: where it is.
        settings: what it was made with: model (as it was named), fingerprint (of the model's
            files), mirrored (whether the images were flipped left to right).
        images: paths, sorted.
        sizes: int32 (N, 2), width and height of the images in pixels.
        descriptors: float32 (N, D) of length 1, memory-mapped: features pooled over each image.
        skipped: path and reason of the images that could not be read.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], entries: NDArray[Any],
                 descriptors: NDArray[np.float32]) -> None:  # fmt: skip
        self.folder, self.settings = folder, settings
        self.descriptors = descriptors
        self.skipped = [(image, reason) for image, reason in settings["skipped"]]
        self.images: Sequence[str] = _Paths(entries)
        self._entries = entries
        self._files: dict[Path, NDArray] = {}
        self._states: dict[int, list[list[int] | None]] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Index":
        """Open what segswap-index wrote.

        Raises:
            ValueError: there is no index, it is not finished, its files are damaged, or another
                version wrote it.
        """
        place = Path(folder)
        settings = read_settings(place)
        version = settings["version"]
        if not version:
            raise ValueError(f"{folder} is not finished; run segswap-index again to go on with it")
        try:
            entries = map_array(images_file(place, version), "V", 1)
            descriptors = map_array(vectors_file(place, version), "f", 2)
            if not are_entries(entries.dtype):
                raise ValueError(f"{images_file(place, version)} holds records {entries.dtype}")
            if len(entries) != len(descriptors) or not len(entries):
                raise ValueError(f"{len(entries)} images, descriptors {descriptors.shape}")
        except ValueError as error:
            raise ValueError(
                f"{folder} is damaged ({error}); delete it and run segswap-index again"
            ) from error
        return cls(place, settings, entries, descriptors)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def sizes(self) -> NDArray[np.int32]:
        """Width and height of every image in pixels: int32 (N, 2)."""
        return np.stack([self._entries["width"], self._entries["height"]], axis=1)

    def with_pixels(self, sha256: str) -> NDArray[np.intp]:
        """Numbers of the images whose pixels have this hash; see `images.pixel_hash`."""
        return np.flatnonzero(self._entries["sha256"] == sha256.encode())

    def encoding(
        self, numbers: Sequence[int] | NDArray[np.intp], like: Encoding | None = None
    ) -> Encoding:
        """What the matcher's `encode` gives for these images.

        Args:
            like: what it gave for others, whose tensors these must be like.

        Raises:
            ValueError: a file of the index is missing or damaged.
        """
        found = Encoding({
            name: self._read(partial(encoded_file, name=name), numbers)
            for name in self.settings["encoded"]
        }).float()  # fmt: skip
        if like is not None:
            self._check_shapes({name: t.shape for name, t in found.items()},
                               {name: t.shape for name, t in like.items()})  # fmt: skip
        return found

    def compared(
        self, numbers: Sequence[int] | NDArray[np.intp], like: Tensor | None = None
    ) -> Tensor:
        """What `Matcher.compared` makes of these encodings: float32 (B, D, h, w).

        Args:
            like: what it made of others.

        Raises:
            ValueError: a file of the index is missing or damaged.
        """
        found = self._read(compared_file, numbers).float()
        if like is not None:
            self._check_shapes({"compared": found.shape}, {"compared": like.shape})
        return found

    def _check_shapes(
        self, found: dict[str, torch.Size], wanted: dict[str, torch.Size]
    ) -> None:  # fmt: skip
        """Refuse tensors of an image that are not what the model makes of one."""
        there, own = ({name: tuple(s[1:]) for name, s in each.items()} for each in (found, wanted))
        if there != own:
            raise ValueError(
                f"{self.folder} is damaged: an image's encoding has the shapes {there}, the "
                f"model's {own}; delete it and run segswap-index again"
            )

    def nearest(
        self, descriptor: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Numbers of the images whose descriptors are the most similar ones, best first, and the
        inner products.

        Exact: all descriptors are read, some tens of thousands at a time.

        Args:
            descriptor: float32 (D,).
            count: how many are wanted; fewer where the index is smaller.
        """
        query = np.ascontiguousarray(descriptor[None], np.float32)
        if query.shape[1] != self.descriptors.shape[1]:
            raise ValueError(
                f"{self.folder} is damaged: its descriptors have {self.descriptors.shape[1]} "
                f"numbers, the model's {query.shape[1]}; delete it and run segswap-index again"
            )
        found, values = np.zeros(0, np.intp), np.zeros(0, np.float32)
        for first in range(0, len(self), _CHUNK):
            part = np.ascontiguousarray(self.descriptors[first : first + _CHUNK])
            similar, numbers = faiss.knn(
                query, part, min(count, len(part)), metric=faiss.METRIC_INNER_PRODUCT
            )
            found = np.concatenate([found, numbers[0] + first])
            values = np.concatenate([values, similar[0]])
            best = np.argsort(-values, kind="stable")[:count]
            found, values = found[best], values[best]
        return found, values

    def changed(self, number: int) -> bool:
        """Whether an image's file holds another image now, or none: then its features are not its.

        A file that is gone, or as long and as old as it was, is not looked into, nor is a URL.
        """
        entry, image = self._entries[number], self.images[number]
        state = state_of(image)
        if not state or state == self._state(int(entry["shard"]), int(entry["row"])):
            return False
        try:
            return pixel_hash(read_image(image)) != bytes(entry["sha256"]).decode()
        except ImageError:
            return True

    def _state(self, shard: int, row: int) -> list[int] | None:
        """What `state_of` said of an image when it was read."""
        if shard not in self._states:
            images = read_shard_record(record_file(self.folder, shard))["images"]
            self._states[shard] = [entry["state"] for entry in images]
        return self._states[shard][row]

    def check_model(self, model: Model) -> None:
        """Refuse a model that did not make this index.

        Raises:
            ValueError: it is another one; both are named.
        """
        if model.fingerprint != self.settings["fingerprint"]:
            own = self.settings["model"]
            raise ValueError(
                f"{self.folder} was made by the model {own} ({self.settings['fingerprint'][:12]}), "
                f"not by {model.folder} ({model.fingerprint[:12]}); use that one, or make an index "
                "with this one"
            )

    def _read(
        self, file: Callable[[Path, int], Path], numbers: Sequence[int] | NDArray[np.intp]
    ) -> Tensor:
        entries = self._entries[list(numbers)]
        try:
            rows = [self._row(file(self.folder, int(e["shard"])), int(e["row"])) for e in entries]
            return torch.from_numpy(np.stack(rows))
        except ValueError as error:
            raise ValueError(
                f"{error}; delete {self.folder} and run segswap-index again"
            ) from error

    def _row(self, path: Path, row: int) -> NDArray:
        """What a shard's file holds of one of its images."""
        if path not in self._files:
            self._files[path] = map_array(path, "fiub")
        array = self._files[path]
        if array.ndim < 2 or not 0 <= row < len(array):
            raise ValueError(f"{path} holds an array {array.shape}, and is to have a row {row}")
        return array[row]


class _Paths(Sequence[str]):
    """The images' paths, decoded when they are asked for."""

    def __init__(self, entries: NDArray[Any]) -> None:
        self._names = entries["image"]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        return os.fsdecode(bytes(self._names[number]))

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))
