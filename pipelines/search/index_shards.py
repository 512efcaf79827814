"""A shard of an index: images read ahead of the model, encoded, and written whole."""

import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.command.devices import device_of, out_of_memory_says
from segswap import geometry
from segswap.files.images import ImageError, pixel_hash, read_image
from segswap.files.storage import replacing, write_atomically
from segswap.matchers.encoding import Encoding
from segswap.models.model import Model, load
from segswap.models.score import pooled
from segswap.search.index_files import (
    compared_file,
    descriptors_file,
    encoded_file,
    record_file,
    state_of,
)

_AHEAD = 8  # images read ahead of the model
_AT_ONCE = 16  # images encoded together on a GPU


@dataclass(frozen=True)
class ShardTask:
    """A shard to be made: its number in the index's folder, its images, and by which model."""

    folder: Path
    number: int
    images: tuple[str, ...]
    model: Path
    device: str
    mirrored: bool


def make_shard(task: ShardTask) -> dict[str, Any]:
    """Read and encode a shard's images and write its files, the record last.

    Returns:
        The record: number; images, each with its path (image), state of the file, sha256 of its
        pixels, width and height; skipped, each with its path and the reason; encoded, the names of
        the encodings' tensors; seconds, in all and waiting for images.
    """
    model = _model(task.model, task.device)
    start = time.perf_counter()
    waiting = 0.0
    images: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    batch: list[NDArray[np.uint8]] = []
    encoded: list[Encoding] = []
    compared: list[Tensor] = []
    descriptors: list[Tensor] = []
    together = 1 if model.device.type == "cpu" else _AT_ONCE

    def encode() -> None:
        with out_of_memory_says("use --device cpu, or fewer --workers"):
            found = model.encode(batch)
            encoded.append(found.half().to("cpu"))
            compared.append(model.matcher.compared(found).half().cpu())
            descriptors.append(pooled(model.matcher, found).cpu())
        batch.clear()

    with ThreadPoolExecutor(2) as threads:
        reading = _read_ahead(threads, task, model.settings["size"])
        while True:
            asked = time.perf_counter()
            read = next(reading, None)
            waiting += time.perf_counter() - asked
            if read is None:
                break
            if isinstance(read, Skipped):
                skipped.append(read)
                continue
            images.append(read[0])
            batch.append(read[1])
            if len(batch) == together:
                encode()
    if batch:
        encode()
    record = {
        "number": task.number, "images": images, "skipped": skipped, "encoded": [],
        "seconds": time.perf_counter() - start, "waiting": waiting,
    }  # fmt: skip
    if images:
        whole = Encoding.cat(encoded)
        record["encoded"] = list(whole)
        for name, tensor in whole.items():
            save_array(encoded_file(task.folder, task.number, name), tensor.numpy())
        save_array(compared_file(task.folder, task.number), torch.cat(compared).numpy())
        save_array(descriptors_file(task.folder, task.number), torch.cat(descriptors).numpy())
        write_atomically(record_file(task.folder, task.number), json.dumps(record).encode())
    return record


class Skipped(NamedTuple):
    """An image that cannot be used, and why."""

    image: str
    reason: str


Read = tuple[dict[str, Any], NDArray[np.uint8]] | Skipped


def _read_ahead(threads: ThreadPoolExecutor, task: ShardTask, size: int) -> Iterator[Read]:
    """The shard's images in order, some of them read before they are asked for."""
    waiting: deque[Future[Read]] = deque()
    for image in task.images:
        waiting.append(threads.submit(_read, image, size, task.mirrored))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(image: str, size: int, mirrored: bool) -> Read:
    """An image's entry and its pixels at the model's size, or why it cannot be used."""
    state = state_of(image)
    try:
        pixels = read_image(image)
    except ImageError as error:
        return Skipped(image, error.reason)
    height, width = pixels.shape[:2]
    entry = {
        "image": image, "state": state, "sha256": pixel_hash(pixels), "width": width,
        "height": height,
    }  # fmt: skip
    shown = geometry.mirror(pixels) if mirrored else pixels
    return entry, geometry.resize(shown, size, size)


@lru_cache(maxsize=1)
def _model(folder: Path, device: str) -> Model:
    """A worker's model, loaded once."""
    return load(folder, device_of(device))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file, whole or not at all."""
    with replacing(path) as file:
        np.save(file, array, allow_pickle=False)
