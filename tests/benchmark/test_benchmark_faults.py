"""Benchmarks' folders in which something is missing or damaged: the message names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_benchmarks import TREES, write_positions
from scipy.io import savemat

from pipelines.benchmark.sets import BENCHMARKS


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a benchmark's tree; returns its folder."""
    return lambda name: TREES[name](tmp_path / name)


def opened(name: str, root: Path) -> Any:
    return BENCHMARKS[name].task(root, None)


MISSING = {
    "internet": "Car100/GroundTruth/0001.png", "coseg": "masks/Bus/img_2.png",
    "brueghel": "brueghelTest.json", "tokyo247": "query/247query_subset_v2/query_1.jpg",
    "pitts30k": "queries_real/001/b.jpg", "pf-willow": "PF-dataset/duck(S)/1b.png",
    "pf-pascal": "PF-dataset-PASCAL/Annotations/bird/2008_000000.mat",
    "tss": "cars/one/mask2.png", "spair": "SPair-71k/Layout/large/test.txt",
    "davis-retrieval": "masks/goat/00002.png", "oxford": "img2.png",
    "animals": "keypoints.json", "cosegmentation": "masks/Bus/2.png",
    "wxbs": "WGBS/church/corrs.txt",
}  # fmt: skip


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_file_is_named_with_the_layout_and_where_the_data_is(
    name: str, tree: Callable[[str], Path]
) -> None:
    root = tree(name)
    path = root / MISSING[name]
    path.unlink()
    one = BENCHMARKS[name]
    with pytest.raises(ValueError, match=path.stem) as raised:
        opened(name, root)
    assert one.layout in str(raised.value)
    assert one.source in str(raised.value)
    assert "https://" in one.source or "http://" in one.source


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_empty_folder_and_none_at_all_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        opened(name, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"^{name}: .*Expected in .*empty"):
        opened(name, tmp_path / "empty")


DAMAGED = {
    "brueghel": ("brueghelTest.json", "{"), "pitts30k": ("pitts30k_test.mat", "no matrix"),
    "pf-willow": ("PF-dataset/test_pairs_pf.csv", "a,b\nx,y,1\n"),
    "pf-pascal": ("PF-dataset-PASCAL/Annotations/bird/2008_000000.mat", "no matrix"),
    "tss": ("cars/one/flip_gt.txt", "maybe"),
    "spair": ("SPair-71k/PairAnnotation/test/000001-0-1:cat.json", '{"category": "cat"}'),
    "oxford": ("H1to2p", "1 2 3"), "animals": ("keypoints.json", '{"keypoints": []}'),
    "wxbs": ("WGBS/church/corrs.txt", "1 2 3 4\n1 2 3\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_annotation_is_named(name: str, tree: Callable[[str], Path]) -> None:
    root, (path, content) = tree(name), DAMAGED[name]
    (root / path).write_text(content)
    with pytest.raises(ValueError, match=Path(path).stem.replace(".", r"\.")):
        opened(name, root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"points": [[1, 2], None]}, r"\(2, 2\) in 80 x 60 px; expected \(3, 2\)"),
        ({"width": 160}, "in 160 x 60 px; expected .* in 80 x 60 px"),
        ({"box": [10, 10, 10, 10]}, "is empty"),
        ({"box": [10, 10, 10]}, "damaged"),
        ({"points": 3}, "damaged"),
    ],
)
def test_a_damaged_animal_is_named(change: Any, said: str, tree: Callable[[str], Path]) -> None:
    path = tree("animals") / "keypoints.json"
    content = json.loads(path.read_text())
    content["images"]["cat/1.jpg"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"cat/1\.jpg .*{said}"):
        opened("animals", path.parent)
    del content["images"]["cat/1.jpg"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"cat/1\.jpg is missing"):
        opened("animals", path.parent)


@pytest.mark.parametrize("name", ["animals", "cosegmentation"])
def test_a_held_out_picture_that_is_not_there_is_named(
    name: str, tree: Callable[[str], Path]
) -> None:
    root = tree(name)
    (root / "heldout.txt").write_text("cat/9.jpg\n")
    with pytest.raises(ValueError, match=r"heldout\.txt names .*cat/9\.jpg, which is not there"):
        opened(name, root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query": ["nowhere.png", [0, 0, 9, 9]], "gt": []}, "nowhere.png"),
        ({"query": ["work_0.png", [9, 0, 9, 9]], "gt": []}, "is empty"),
        ({"query": ["work_0.png", [0, 9, 9]], "gt": []}, "damaged"),
        ({"gt": []}, "query"),
        ("text", "damaged"),
    ],
)
def test_a_damaged_query_is_named(change: Any, said: str, tree: Callable[[str], Path]) -> None:
    root = tree("brueghel")
    (root / "brueghelTest.json").write_text(json.dumps({"bird": [change]}))
    with pytest.raises(ValueError, match=said):
        opened("brueghel", root)


def test_a_list_of_no_queries_or_pairs_is_refused(tree: Callable[[str], Path]) -> None:
    root = tree("brueghel")
    (root / "brueghelTest.json").write_text("{}")
    with pytest.raises(ValueError, match="nothing to measure on"):
        opened("brueghel", root)


def test_shortlists_of_another_database_are_refused(tree: Callable[[str], Path]) -> None:
    root = tree("pitts30k")
    for values in (np.array([[0, 4], [1, 2]]), np.array([[0, 1]]), np.zeros((2, 3))):
        np.save(root / "shortlists.npy", values)
        with pytest.raises(ValueError, match=r"shortlists\.npy holds .* each of 2 queries"):
            opened("pitts30k", root)
    (root / "shortlists.npy").unlink()
    (root / "shortlists.txt").write_text("0.jpg\n")
    with pytest.raises(ValueError, match="1 lines"):
        opened("pitts30k", root)
    (root / "shortlists.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="not in the database"):
        opened("pitts30k", root)


def test_a_tokyo_list_that_is_not_by_places_is_refused(tree: Callable[[str], Path]) -> None:
    root = tree("tokyo247")
    names = [f"03814/{place}_{view}.jpg" for place in range(2) for view in range(12)]
    at = np.tile([(0.0, 0.0), (500.0, 0.0)], (12, 1))
    write_positions(root / "tokyo247.mat", names, at, ["query_0.jpg"], at[:1])
    with pytest.raises(ValueError, match="12 images of each place"):
        opened("tokyo247", root)
    savemat(root / "tokyo247.mat", {"other": 1})
    with pytest.raises(ValueError, match=r"tokyo247\.mat cannot be read as a dbStruct"):
        opened("tokyo247", root)
