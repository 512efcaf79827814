"""The methods that segswap-benchmark runs: models and baselines, on made and on real data."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_benchmarks import (
    HEIGHT,
    TREES,
    WIDTH,
    same_place,
    write_brueghel,
    write_kinds,
    write_pascal,
    write_pitts,
    write_tokyo,
)
from made_models import save_model
from PIL import Image

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.job import measure
from pipelines.benchmark.methods import Contestants, discover_masks
from pipelines.benchmark.sets import BENCHMARKS, places
from segswap.evaluation.baselines import ellipse_mask
from segswap.files.images import read_image
from segswap.models.prediction import Prediction


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model, called "tiny"; not to be changed."""
    return str(save_model(tmp_path_factory.mktemp("models") / "tiny"))


def scores_of(config: BenchmarkConfig) -> dict[str, dict[str, float]]:
    (section,) = measure(config)
    return section.rows


# --- models and baselines --------------------------------------------------------------------


def test_models_and_baselines_are_run_on_pairs(model: str, tmp_path: Path) -> None:
    root = str(write_pascal(tmp_path / "data"))
    rows = scores_of(
        BenchmarkConfig("pf-pascal", root, (model,), ("sift", "pooled", "features"), device="cpu")
    )
    # Pooled features tell no positions.
    assert list(rows) == ["tiny (correlation)", "features of tiny", "sift+ransac"]


def test_models_and_baselines_are_run_on_collections(model: str, tmp_path: Path) -> None:
    root = str(write_brueghel(tmp_path / "data"))
    config = BenchmarkConfig(
        "brueghel", root, (model,), ("sift", "pooled", "features"), device="cpu",
        predictions=str(tmp_path / "kept"),
    )  # fmt: skip
    rows = scores_of(config)
    assert list(rows) == ["tiny (correlation)", "pooled features of tiny", "sift+ransac"]
    # Pictures of one look are nearly the same; in the order of their names they have 0.625.
    assert rows["tiny (correlation)"]["mAP"] == 1
    assert rows["pooled features of tiny"]["mAP"] == 1
    # They find no box.
    assert rows["pooled features of tiny"]["detection mAP"] == 0
    # One index is made of the collection, beside the predictions.
    assert len(list((tmp_path / "kept").glob("index-tiny-*"))) == 1


def test_sift_ranks_places(tmp_path: Path) -> None:
    root = str(write_pitts(tmp_path / "data"))
    rows = scores_of(BenchmarkConfig("pitts30k", root, baseline=("sift",)))
    assert rows == {"sift+ransac": {"R@1": 1, "R@5": 1, "R@10": 1}}


def test_without_shortlists_a_models_pooled_features_make_them(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_RERANKED", 12)
    root = str(write_tokyo(tmp_path / "data"))
    rows = scores_of(BenchmarkConfig("tokyo247", root, (model,), ("sift",), limit=2, device="cpu"))
    assert rows["tiny (correlation)"]["R@5"] == 1
    with pytest.raises(ValueError, match="a --model that makes them"):
        measure(BenchmarkConfig("tokyo247", root, baseline=("sift",)))


def test_an_image_of_the_collection_that_cannot_be_read_is_named(
    model: str, tmp_path: Path
) -> None:
    root = write_brueghel(tmp_path / "data")
    (root / "Image" / "work_5.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1 of 6 images .* cannot be read.*work_5\.png"):
        measure(BenchmarkConfig("brueghel", str(root), (model,), device="cpu"))


def test_sifts_predictions_depend_on_a_model_only_where_it_makes_the_shortlists(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = str(save_model(tmp_path / "other", seed=1))
    root, kept = str(write_pitts(tmp_path / "data")), str(tmp_path / "kept")

    def measured(where: str) -> None:
        measure(BenchmarkConfig("pitts30k", root, (where,), ("sift",), predictions=kept,
                                device="cpu"))  # fmt: skip

    measured(model)
    measured(other)
    shutil.rmtree(kept)
    monkeypatch.setattr(places, "_RERANKED", 3)
    measured(model)
    with pytest.raises(ValueError, match=r"sift\+ransac.* another method"):
        measured(other)


# --- the ellipse -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cosegmentation", "coseg"])
@pytest.mark.parametrize("share", [0.2, 0.45])
def test_of_the_ellipses_the_one_with_the_best_masks_is_shown(
    name: str, share: float, tmp_path: Path
) -> None:
    root = write_kinds(tmp_path, Bus=3)
    for path in (root / "masks" / "Bus").iterdir():
        Image.fromarray(ellipse_mask(WIDTH, HEIGHT, share)).save(path)
    rows = scores_of(BenchmarkConfig(name, str(root), baseline=("ellipse", "sift")))
    assert list(rows) == ["sift+ransac", f"ellipse {share}"]
    assert rows[f"ellipse {share}"]["J"] > 0.95
    # In discovery the mask is not brought to a grid in between.
    assert name == "cosegmentation" or rows[f"ellipse {share}"]["J"] == 1


def test_animals_show_the_ellipse_with_the_best_masks(tmp_path: Path) -> None:
    root = TREES["animals"](tmp_path)
    for path in (root / "masks" / "cat").iterdir():
        Image.fromarray(ellipse_mask(WIDTH, HEIGHT, 0.35)).save(path)
    rows = scores_of(BenchmarkConfig("animals", str(root), baseline=("ellipse",)))
    assert list(rows) == ["ellipse 0.35"]
    assert rows["ellipse 0.35"]["PCK@0.10 within"] == 0.75


@pytest.mark.parametrize("name", ["wxbs", "spair", "pitts30k"])
def test_without_masks_there_is_no_ellipse(name: str, tmp_path: Path) -> None:
    root = str(TREES[name](tmp_path / "data"))
    rows = scores_of(BenchmarkConfig(name, root, baseline=("ellipse", "sift")))
    assert list(rows) == ["sift+ransac"]


# --- real data -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real(data: Path) -> Path:
    """Parts of real benchmarks."""
    if not (data / "benchmarks").is_dir():
        pytest.skip(f"no benchmarks in {data}")
    return data / "benchmarks"


def test_sift_on_real_planes_and_cars(real: Path) -> None:
    planes = scores_of(BenchmarkConfig("oxford", str(real / "oxford_graf"), baseline=("sift",)))
    # One affine map for a homography, and nothing of the second pair.
    assert planes["sift+ransac"]["PCK@5%"] > 0.3
    cars = scores_of(BenchmarkConfig("tss", str(real / "tss"), baseline=("sift",)))["sift+ransac"]
    assert set(cars) == {"flow FG3DCar", "flow", "P", "J", "LT-ACC", "transfer IoU"}
    assert cars["flow"] == cars["flow FG3DCar"]


def test_real_places_in_another_light_are_scored(real: Path) -> None:
    rows = scores_of(BenchmarkConfig("wxbs", str(real / "wxbs"), baseline=("sift",)))
    shares = list(rows["sift+ransac"].values())
    assert 0.03 < shares[0] < shares[1] < shares[2] < 0.3


@pytest.mark.slow
def test_real_kinds_have_ellipses_of_their_own_size(data: Path) -> None:
    found = {}
    for name, folder in (
        ("cosegmentation", "benchmarks/coseg"), ("cosegmentation", "benchmarks/davis"),
        ("cosegmentation", "classes"), ("animals", "animals"),
    ):  # fmt: skip
        if not (data / folder).is_dir():
            pytest.skip(f"no {folder} in {data}")
        config = BenchmarkConfig(name, str(data / folder), baseline=("ellipse",), limit=10)
        ((found[folder], row),) = scores_of(config).items()
        assert ("false area" in row) == (folder == "classes")
    # Buses fill their pictures, what a video is about does not.
    assert found["benchmarks/davis"] < found["benchmarks/coseg"] == "ellipse 0.35"


def test_sift_finds_real_frames_of_a_sequence(real: Path, tmp_path: Path) -> None:
    for name in ("blackswan", "camel"):
        for kind in ("images", "masks"):
            shutil.copytree(real / "davis" / kind / name, tmp_path / kind / name)
    rows = scores_of(BenchmarkConfig("davis-retrieval", str(tmp_path), baseline=("sift",)))
    assert rows["sift+ransac"]["mAP"] > 0.8


def test_a_models_discovery_on_real_buses(real: Path, model: str) -> None:
    rows = scores_of(BenchmarkConfig("coseg", str(real / "coseg"), (model,), limit=3, device="cpu"))
    (row,) = rows.values()
    assert set(row) == {"P Bus", "J Bus", "P", "J"}
    assert 0 < row["P"] <= 1


def test_sifts_discovery_on_made_images(tmp_path: Path) -> None:
    rows = scores_of(
        BenchmarkConfig("coseg", str(TREES["coseg"](tmp_path / "data")), baseline=("sift",))
    )
    assert set(rows["sift+ransac"]) == {"P Bus", "J Bus", "P", "J"}


def test_discovery_by_a_baseline_shows_it_targets_as_they_are_and_mirrored(tmp_path: Path) -> None:
    folder = TREES["coseg"](tmp_path / "data") / "images" / "Bus"
    images = [str(path) for path in sorted(folder.iterdir())[:2]]
    first, second = (read_image(image) for image in images)
    seen = []

    def noted(source: np.ndarray, target: np.ndarray) -> Prediction:
        seen.append((source.tobytes(), target.tobytes()))
        return same_place(source, target)

    masks = discover_masks(noted, images, None)
    mirrored = np.ascontiguousarray(second[:, ::-1])
    assert set(seen) == {(first.tobytes(), each.tobytes()) for each in (second, mirrored)}
    # All of both images is where it was.
    assert [mask is not None and mask.shape for mask in masks] == [first.shape[:2]] * 2


def test_discovery_looks_at_matches_of_the_confidence_that_is_asked_for(tmp_path: Path) -> None:
    folder = TREES["coseg"](tmp_path / "data") / "images" / "Bus"
    images = [str(path) for path in sorted(folder.iterdir())[:2]]

    def faint(source: np.ndarray, target: np.ndarray) -> Prediction:
        found = same_place(source, target)
        return replace(found, source_mask=found.source_mask * 0.8)

    contestants = Contestants((), ("sift",), "cpu", tmp_path)
    for least, found in ((0.85, False), (0.5, True)):
        masks = discover_masks(faint, images, None, least)
        assert [mask is not None for mask in masks] == [found] * 2
        task = BENCHMARKS["coseg"].task(folder.parents[1], None)
        method = replace(contestants, confidence=least).methods(task)["sift+ransac"]
        assert method.identity.endswith(f"confidence {least}")
        assert method.way.keywords == {"confidence": least}


def test_an_image_that_discovery_cannot_read_is_named(tmp_path: Path) -> None:
    root = TREES["coseg"](tmp_path / "data")
    (root / "images" / "Bus" / "img_1.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"img_1\.jpg"):
        measure(BenchmarkConfig("coseg", str(root), baseline=("sift",)))
