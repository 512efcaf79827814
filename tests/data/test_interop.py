"""Reuse without this project: other libraries' readers give what was written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from segswap.data.shards import read_pairs


def test_hugging_face_datasets_reads_the_shards(photos_dataset: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = {split: str(photos_dataset / f"{split}-*.tar") for split in ("train", "val")}
    loaded = datasets.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path))
    for split in files:
        pairs = list(read_pairs(photos_dataset, split))
        assert [row["__key__"] for row in loaded[split]] == [f"{p.index:09d}" for p in pairs]
        for row, pair in zip(loaded[split], pairs, strict=True):
            for part in ("source", "target", "source_styled", "target_styled"):
                np.testing.assert_array_equal(np.array(row[f"{part}.jpg"]), getattr(pair, part))
            for part in ("source_mask", "target_mask"):
                np.testing.assert_array_equal(np.array(row[f"{part}.png"]), getattr(pair, part))
            for item, kept in zip(row["json"]["objects"], pair.objects, strict=True):
                np.testing.assert_array_equal(item["target_from_source"], kept.target_from_source)


_READ = """
import glob, json, sys
import ray

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
         object_store_memory=100 * 2**20)
try:
    shards = sorted(glob.glob(sys.argv[1] + "/train-*.tar"))
    rows = ray.data.read_webdataset(shards).take_all()
finally:
    ray.shutdown()
with open(sys.argv[2], "w") as file:
    json.dump([{"key": row["__key__"], "objects": row["json"]["objects"],
                "source": row["source.jpg"].tolist(), "mask": row["target_mask.png"].tolist()}
               for row in rows], file)
"""


@pytest.mark.slow
def test_ray_data_reads_the_shards(photos_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="ray.data is not installed")
    done = subprocess.run(
        [sys.executable, "-c", _READ, photos_dataset, tmp_path / "rows.json"],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    pairs = {f"{pair.index:09d}": pair for pair in read_pairs(photos_dataset, "train")}
    assert sorted(row["key"] for row in rows) == sorted(pairs)
    for row in rows:
        pair = pairs[row["key"]]
        np.testing.assert_array_equal(row["source"], pair.source)
        np.testing.assert_array_equal(row["mask"], pair.target_mask)
        for item, kept in zip(row["objects"], pair.objects, strict=True):
            np.testing.assert_array_equal(item["target_from_source"], kept.target_from_source)


READERS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "format.md").read_text(), flags=re.M | re.S
)


# Ray alone takes most of a minute.
@pytest.mark.parametrize(
    "reader",
    [
        pytest.param(text, marks=[pytest.mark.slow] if "import ray" in text else [])
        for text in READERS
    ],
    ids=[text.split()[1].strip(",") for text in READERS],
)
def test_the_readers_of_the_document_run(reader: str, photos_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs").symlink_to(photos_dataset)
    done = subprocess.run(
        [sys.executable, "-c", reader], cwd=tmp_path, capture_output=True, text=True, timeout=180,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
