"""Reuse without this project: the card's reader, plain tools, webdataset, Croissant."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipelines.generation.card import _size_category
from pipelines.pages.look import draw_pair
from segswap.data.shards import read_pairs


@pytest.fixture(scope="module")
def manifest(photos_dataset: Path) -> dict[str, Any]:
    return json.loads((photos_dataset / "segswap.json").read_text())


@pytest.fixture(scope="module")
def card(photos_dataset: Path) -> str:
    return (photos_dataset / "README.md").read_text()


# --- plain tools -------------------------------------------------------------------------------


def test_the_cards_reader_runs_as_it_stands(photos_dataset: Path, card: str) -> None:
    """It names a pixel of each object and its place in the target; both are the object's."""
    code = card.split("```python\n")[1].split("```")[0]
    assert "segswap" not in code.replace("segswap.json", "")
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=photos_dataset, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = next(iter(read_pairs(photos_dataset, "train")))
    lines = done.stdout.splitlines()
    assert len(lines) == len(first.objects)
    for line, item in zip(lines, first.objects, strict=True):
        assert line.startswith(f"{item.category} source [")
        source, target = (
            np.array(part.strip(" []").split(), float)
            for part in line.split("source")[1].split("is target")
        )
        x, y = source.astype(int)
        assert first.source_mask[y, x] == item.label
        column, row = target.round().astype(int)
        around = first.target_mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert item.label in around


def test_shards_are_plain_tars_of_plain_images(photos_dataset: Path) -> None:
    """tarfile, Pillow and NumPy give what this project's reader gives."""
    for path in sorted(photos_dataset.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            files = {name: tar.extractfile(name) for name in names}
            content = {name: file.read() for name, file in files.items() if file is not None}
        keys = sorted({name.split(".")[0] for name in names})
        assert names == [
            f"{key}.{part}"
            for key in keys
            for part in (
                "source.jpg", "target.jpg", "source_styled.jpg", "target_styled.jpg",
                "source_mask.png", "target_mask.png", "json",
            )
        ]  # fmt: skip
        for key in keys:
            record = json.loads(content[f"{key}.json"])
            assert record["format"] == 1
            assert record["index"] == int(key)
            labels = {0, *(item["label"] for item in record["objects"])}
            for side in ("source", "target"):
                image = Image.open(io.BytesIO(content[f"{key}.{side}.jpg"]))
                assert (image.mode, image.size) == ("RGB", (record["width"], record["height"]))
                mask = Image.open(io.BytesIO(content[f"{key}.{side}_mask.png"]))
                assert (mask.mode, mask.size) == ("L", image.size)
                assert set(np.unique(np.array(mask))) == labels
            for item in record["objects"]:
                assert np.array(item["target_from_source"]).shape == (3, 3)
                assert set(item) == {"label", "target_from_source", "category", "segment", "blend"}
                assert set(item["segment"]) == {
                    "dataset", "image", "sha256", "annotation", "proposer"
                }  # fmt: skip
            assert set(record["background"]) == {"dataset", "image", "sha256"}


def test_webdataset_reads_the_shards(photos_dataset: Path) -> None:
    wds = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(photos_dataset.glob("train-*.tar"))]
    loaded = list(wds.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    pairs = list(read_pairs(photos_dataset, "train"))
    assert [sample["__key__"] for sample in loaded] == [f"{pair.index:09d}" for pair in pairs]
    for sample, pair in zip(loaded, pairs, strict=True):
        np.testing.assert_array_equal(sample["source.jpg"], pair.source)
        np.testing.assert_array_equal(sample["target_mask.png"][..., 0], pair.target_mask)
        matrices = [np.array(item["target_from_source"]) for item in sample["json"]["objects"]]
        for matrix, item in zip(matrices, pair.objects, strict=True):
            np.testing.assert_array_equal(matrix, item.target_from_source)


# --- the card ----------------------------------------------------------------------------------


def test_the_cards_front_matter_names_the_splits(card: str, photos_dataset: Path) -> None:
    _, front, _ = card.split("---\n", 2)
    content = yaml.safe_load(front)
    files = content["configs"][0]["data_files"]
    assert [entry["split"] for entry in files] == ["train", "val"]
    for entry, shards in zip(files, (3, 1), strict=True):
        assert len(list(photos_dataset.glob(entry["path"]))) == shards


@pytest.mark.parametrize(
    ("pairs", "word"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6 - 1, "100K<n<1M"), (10**6, "1M<n<10M")],
)
def test_the_hub_is_told_how_many_pairs_there_are(pairs: int, word: str) -> None:
    assert _size_category(pairs) == word


def test_datasets_loads_it_as_the_card_says(
    photos_dataset: Path, card: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    """Also each split by the card's own configs, which is what the hub's viewer does."""
    assert yaml.safe_load(card.split("---\n", 2)[1])["size_categories"] == ["n<1K"]
    datasets = pytest.importorskip("datasets")
    code = card.split("```python\n")[2].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=photos_dataset.parent, capture_output=True, text=True,
        timeout=120, env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = datasets.load_dataset(str(photos_dataset), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        split: entry["pairs"] for split, entry in manifest["splits"].items()
    }
    for row, pair in zip(loaded["val"], read_pairs(photos_dataset, "val"), strict=True):
        assert row["__key__"] == f"{pair.index:09d}"
        np.testing.assert_array_equal(np.array(row["source.jpg"]), pair.source)
        np.testing.assert_array_equal(np.array(row["target_mask.png"]), pair.target_mask)
        matrices = [item["target_from_source"] for item in row["json"]["objects"]]
        np.testing.assert_array_equal(matrices, [o.target_from_source for o in pair.objects])


def test_the_card_counts(card: str, manifest: dict[str, Any]) -> None:
    for split, entry in manifest["splits"].items():
        size = sum(shard["bytes"] for shard in entry["shards"])
        assert f"| {split} | {entry['pairs']} | {len(entry['shards'])} | {size} |" in card
    assert "| photos | 12 | 43 | 0 |" in card
    assert manifest["generator"] in card


def test_the_card_shows_examples(card: str, photos_dataset: Path) -> None:
    assert "](examples.jpg)" in card
    with Image.open(photos_dataset / "examples.jpg") as shown:
        sheet = np.array(shown.convert("RGB")).astype(int)
    pair = next(iter(read_pairs(photos_dataset, "train")))
    first = draw_pair(pair, 240)
    assert np.abs(sheet[16:256, 16 : 16 + first.shape[1]] - first).mean() < 5


def test_every_image_used_is_attributed(card: str, photos_dataset: Path) -> None:
    used = set()
    for split in ("train", "val"):
        for pair in read_pairs(photos_dataset, split):
            used |= {pair.background["image"], *(item.segment["image"] for item in pair.objects)}
    with open(photos_dataset / "attribution.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert sorted(row["image"] for row in listed) == sorted(used)
    assert all(row["dataset"] == "photos" and row["licence"] and row["credit"] for row in listed)
    for row in listed:
        assert f"| {row['image']} | {row['licence']} | {row['credit']} |" in card
    assert f"lists all {len(used)} of them" in card


def test_the_card_names_no_place_of_this_machine(card: str, photos_dataset: Path) -> None:
    """But for paths that the user gave."""
    settings = card.split("```yaml\n")[1]
    assert str(photos_dataset.parent) not in card.replace(settings, "")


# --- Croissant ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def metadata(photos_dataset: Path) -> dict[str, Any]:
    return json.loads((photos_dataset / "croissant.json").read_text())


def test_croissant_lists_every_shard_with_its_hash(
    photos_dataset: Path, metadata: dict[str, Any]
) -> None:
    files = {f["@id"]: f for f in metadata["distribution"] if f["@type"] == "cr:FileObject"}
    paths = sorted(photos_dataset.glob("*.tar"))
    assert sorted(files) == [path.name for path in paths]
    for path in paths:
        data = path.read_bytes()
        assert files[path.name]["contentUrl"] == path.name
        assert files[path.name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert files[path.name]["contentSize"] == f"{len(data)} B"


def test_croissant_refers_to_what_it_defines(metadata: dict[str, Any]) -> None:
    assert metadata["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    identities = [entry["@id"] for entry in metadata["distribution"]]
    fields = [field for record in metadata["recordSet"] for field in record["field"]]
    names = [*identities, *(r["@id"] for r in metadata["recordSet"]), *(f["@id"] for f in fields)]
    assert len(set(names)) == len(names)
    for entry in metadata["distribution"]:
        assert {inner["@id"] for inner in entry.get("containedIn", [])} <= set(identities)
    assert {field["source"]["fileSet"]["@id"] for field in fields} <= set(identities)
    includes = {entry["includes"] for entry in metadata["distribution"] if "includes" in entry}
    assert includes == {
        "*.json", "*.source.jpg", "*.target.jpg", "*.source_mask.png", "*.target_mask.png",
        "*.source_styled.jpg", "*.target_styled.jpg",
    }  # fmt: skip


def test_mlcroissant_accepts_and_reads_it(
    photos_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It keeps what it unpacked by the shard's name, whichever dataset that was of.
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path))
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    dataset = mlcroissant.Dataset(jsonld=str(photos_dataset / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    for split in ("train", "val"):
        pairs = {f"{p.index:09d}": p for p in read_pairs(photos_dataset, split)}
        name = f"{split}-source_mask-png"
        found = {r[f"{name}/key"].decode(): r[f"{name}/content"] for r in dataset.records(name)}
        assert sorted(found) == sorted(pairs)
        for key, mask in found.items():
            np.testing.assert_array_equal(np.array(mask), pairs[key].source_mask)
