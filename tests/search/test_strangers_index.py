"""Indexes, groups and predictions of strangers: refused by file and key, none outside is read."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import textured
from made_models import save_model
from runs import in_process

import segswap
from pipelines.discovery.results import Discovered
from pipelines.search.index import build_index, collect
from pipelines.search.retrieve_config import main as retrieve_command
from segswap.discovery.links import Links
from segswap.models.prediction import Prediction
from segswap.search.index import Index


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two images, beside them and their model."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "images").mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), textured(64, 64, number))
    model = save_model(folder / "model")
    build_index(collect([str(folder / "images")]).images, str(model), folder / "index")
    return folder


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "index", tmp_path / "index"))


def settings(**changes: Any) -> Callable[[Path], None]:
    def harm(index: Path) -> None:
        path = index / "index.json"
        there = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in there.items() if v != "absent"}))

    return harm


def array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def harm(index: Path) -> None:
        there = np.array(np.load(index / name))
        np.save(index / name, change(there), allow_pickle=True)

    return harm


def moved(field: str, value: int) -> Callable[[Any], Any]:
    def change(entries: Any) -> Any:
        entries[field] = value
        return entries

    return change


def pickled(name: str) -> Callable[[Path], None]:
    return lambda index: (index / name).write_bytes(pickle.dumps([1])) and None


HARMS: list[tuple[Callable[[Path], None], str]] = [
    (settings(version="absent"), "index.json has no version; expected an integer"),
    (settings(format="absent"), "index.json has no format"),
    (settings(fingerprint=5), "fingerprint is an integer"),
    (settings(model=None), "model is null; expected text"),
    (settings(mirrored=0), "mirrored is an integer; expected true or false"),
    (settings(version="1"), "version is text"), (settings(version=-1), "has version -1"),
    (settings(version=99), "images-99.npy cannot be read"),
    (settings(encoded="absent"), "has version 1, and encoded"),
    (settings(encoded="descriptors"), "encoded is text; expected a list"),
    (settings(encoded=["../../other"]), "encoded names '../../other'"),
    (settings(encoded=["a/../b"]), "encoded names"), (settings(encoded=[5]), "is an integer"),
    (settings(encoded=["nothing"]), r"encoded\.nothing\.npy cannot be read"),
    (settings(skipped=None), "skipped is null"), (settings(skipped=[["a"]]), "path and reason"),
    (settings(skipped=[["a", 5]]), r"skipped\[1\] is an integer"),
    (array("images-1.npy", lambda a: np.zeros(len(a))), "holds float64 .* expected records"),
    (array("images-1.npy", lambda a: a[["image", "row"]]), "holds records"),
    (array("images-1.npy", lambda a: a[:0]), "0 images"),
    (array("images-1.npy", lambda a: a[:1]), "1 images, descriptors"),
    (array("images-1.npy", lambda a: a.astype(object)), "cannot be read as an array"),
    (pickled("images-1.npy"), "cannot be read as an array"),
    (array("images-1.npy", moved("row", 7)), "is to have a row 7"),
    (array("images-1.npy", moved("row", -1)), "is to have a row -1"),
    (array("images-1.npy", moved("shard", -1)), "shard--0001.* cannot be read"),
    (array("descriptors-1.npy", lambda a: a.astype("U")), "expected floating-point"),
    (array("descriptors-1.npy", lambda a: a[0]), "2 dimensions"),
    (array("shard-00000.encoded.energy.npy", lambda a: a[:, :1]), "encoding has the shapes"),
    (array("shard-00000.encoded.energy.npy", lambda a: a.astype("U")), "holds <U"),
    (array("shard-00000.encoded.energy.npy", lambda a: np.array(3.0)), r"holds an array \(\)"),
    (pickled("shard-00000.encoded.descriptors.npy"), "cannot be read as an array"),
    (lambda index: (index / "index.json").write_text("[]") and None, "is a list; expected an"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "said"), HARMS)
def test_an_index_of_a_stranger(
    harm: Callable[[Path], None], said: str, made: Path, index: Path
) -> None:
    harm(index)
    with pytest.raises(ValueError, match=said) as caught:
        segswap.retrieve(str(index), str(made / "images" / "1.png"))
    assert str(index) in str(caught.value)


def test_a_shortlist_of_other_shapes(made: Path, index: Path) -> None:
    query = str(made / "images" / "1.png")
    array("shard-00000.compared.npy", lambda a: a[:, :5])(index)
    with pytest.raises(ValueError, match="encoding has the shapes"):
        segswap.retrieve(str(index), query, shortlist=1)
    array("descriptors-1.npy", lambda a: a[:, :5])(index)
    with pytest.raises(ValueError, match="descriptors have 5 numbers, the model's 128"):
        Index.open(index).nearest(np.ones(128, np.float32), 1)


def test_the_command_says_so_in_a_sentence(made: Path, index: Path) -> None:
    settings(encoded=["../x"])(index)
    done = in_process(retrieve_command, "segswap-retrieve", index, made / "images" / "0.png")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {index / 'index.json'} is damaged (")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"number": 3}, "it is of shard 3"), ({"images": None}, "images is null"),
        ({"images": [{"image": 5}]}, r"images\[0\]'s image is an integer"),
        ({"skipped": [5]}, r"skipped\[0\] is an integer"), ({"seconds": "1"}, "seconds is text"),
    ],
)  # fmt: skip
def test_a_record_of_a_shard(
    record: dict[str, Any], said: str, made: Path, index: Path
) -> None:  # fmt: skip
    path = index / "shard-00000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | record))
    with pytest.raises(ValueError, match=rf"{path} is damaged \(.*{said}"):
        build_index(collect([str(made / "images")]).images, str(made / "model"), index)


GROUPS: dict[str, Any] = {
    "images": [{"image": "a.jpg", "width": 5, "height": 5, "mask": None}] * 2, "skipped": [],
    "groups": [{"strength": 1.0, "members": [
        {"image": 0, "strength": 1.0, "mask": "groups/01/00000.png", "box": [0, 0, 5, 5]}]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ([], "absent", "groups.json has no images"), (["images"], {}, "images is an object"),
        (["images", 0, "mask"], "../../x.png", "expected a path within its folder"),
        (["images", 1, "mask"], 3, r"images\[1\]'s mask is an integer"),
        (["groups", 0, "members", 0, "mask"], "/etc/passwd", "expected a path within its folder"),
        (["groups", 0, "members", 0, "image"], 2, "there is no image 2"),
        (["groups", 0, "members", 0, "image"], -1, "there is no image -1"),
        (["groups", 0, "members", 0, "box"], [1, 2], "expected 4 numbers"),
        (["groups", 0, "members"], None, r"groups\[0\]'s members is null"),
        (["skipped"], [{"image": "a"}], r"skipped\[0\] has no reason"),
    ],
)  # fmt: skip
def test_groups_of_a_stranger(path: list[Any], value: Any, said: str, tmp_path: Path) -> None:
    record = json.loads(json.dumps(GROUPS))
    place = record
    for key in path[:-1]:
        place = place[key]
    if path:
        place[path[-1]] = value
    else:
        del record["images"]
    (tmp_path / "groups.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=said):
        Discovered.read(tmp_path, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"to_target": np.full((2, 2, 2), "a")}, {"source_mask": np.zeros((2, 2), bool)},
        {"source_same": np.zeros((2, 2), complex)}, {"target_mask": np.zeros((0, 0), np.float32)},
        {"further": np.zeros(1)}, {"to_source": np.array([None], object)}, {"to_target": None},
    ],
)  # fmt: skip
def test_predictions_of_a_stranger(change: dict[str, Any], tmp_path: Path) -> None:
    positions, mask = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2), np.float32)
    arrays = {"to_target": positions, "to_source": positions, "source_mask": mask,
              "target_mask": mask} | change  # fmt: skip
    np.savez(tmp_path / "a.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as a prediction"):
        Prediction.load(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", mask)
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as a prediction"):
        Prediction.load(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as links"):
        Links.load(tmp_path / "a.npz")
