"""How far the recorded maps of a dataset miss the pixels, measured by registration.

    python benchmarks/position_error.py DATASET

Reads the shards with tarfile and Pillow, and registers source and target of every object along its
recorded map (segswap/fitting/registration.py): nothing of the generator takes part. Objects that
nobody could register, for want of texture, are counted and left out.
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segswap.fitting.registration import Found, certain, register


def samples(dataset: Path) -> Iterator[tuple[dict[str, Any], dict[str, NDArray]]]:
    """Record and images of every pair of a dataset: source, target and their masks."""
    for path in sorted(dataset.glob("*.tar")):
        with tarfile.open(path) as tar:
            record: dict[str, dict[str, Any]] = {}
            for member in tar:
                key, part = member.name.split(".", 1)
                file = tar.extractfile(member)
                assert file is not None
                record.setdefault(key, {})[part] = file.read()
        for parts in record.values():
            yield (
                json.loads(parts["json"]),
                {
                    name.split(".")[0]: np.array(Image.open(io.BytesIO(parts[name])))
                    for name in ("source.jpg", "target.jpg", "source_mask.png", "target_mask.png")
                },
            )


def measure(dataset: Path) -> list[Found | None]:
    """The registration of every object of a dataset."""
    return [
        register(images, item["label"], np.array(item["target_from_source"]))
        for record, images in samples(dataset)
        for item in record["objects"]
    ]


def summary(found: list[Found | None]) -> str:
    """Median, 95% and maximum, and how many objects they are of."""
    sure = certain(found)
    if not sure:
        return f"none of {len(found)} objects could be registered"
    median, p95 = np.percentile([one.errors for one in sure], [50, 95])
    worst = max(one.worst for one in sure)
    return (
        f"median {median:.3f} px, 95% {p95:.3f} px, max {worst:.3f} px; {len(sure)} of "
        f"{len(found)} objects could be registered, the others lack texture or size"
    )


def main() -> None:
    """Print the figures of the dataset that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/position_error.py DATASET")
    print("position error:", summary(measure(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
