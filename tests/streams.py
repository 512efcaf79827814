"""Small datasets and streams of them, for tests."""

from pathlib import Path

import numpy as np
import torch
from made_pairs import pasted_pair, write_dataset

from segswap.batches.stream import PairStream
from segswap.files import storage

SIZE, STRIDE = 96, 8
CELLS = SIZE // STRIDE


def stream_of(*datasets: str, **options: object) -> PairStream:
    settings = {"split": "train", "size": SIZE, "stride": STRIDE} | options
    return PairStream(datasets, **settings)  # type: ignore[arg-type]


def made(folder: Path, count: int, first: int = 0, shard_pairs: int = 3) -> str:
    """A dataset of small pairs with the given indices."""
    pairs = [pasted_pair(index, size=32) for index in range(first, first + count)]
    return write_dataset(folder, pairs, shard_pairs=shard_pairs)


def indices(items: PairStream, numbers: range) -> list[int]:
    return [items.pair(number).index for number in numbers]


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def uploaded(folder: str, url: str) -> str:
    for name in storage.entries(folder):
        storage.write_atomically(storage.join(url, name), Path(folder, name).read_bytes())
    return url
