"""segswap-benchmark: two passes, tables with published scores, `all`, and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from made_benchmarks import (
    BY_COLOUR,
    TREES,
    same_place,
    write_brueghel,
    write_davis,
    write_pascal,
)

from pipelines.benchmark import job as command
from pipelines.benchmark.config import BenchmarkConfig, Name, main
from pipelines.benchmark.job import benchmark, measure, table
from pipelines.benchmark.methods import Contestants
from pipelines.benchmark.published import PUBLISHED, Published
from pipelines.benchmark.sets import BENCHMARKS
from pipelines.benchmark.sets.discovery import Discovery
from pipelines.benchmark.sets.pairs import Pairs
from pipelines.benchmark.sets.retrieval import Retrieval, Search
from pipelines.benchmark.sources import SOURCES
from pipelines.evaluate.predictions import Method

NAN = float("nan")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In the place of SIFT, methods that need no time; returns what they predict."""
    asked = []
    ways: dict[type, Any] = {
        Pairs: same_place, Retrieval: BY_COLOUR,
        Discovery: lambda images, sigma: [None] * len(images),
    }  # fmt: skip

    def fake(self: Contestants, task: Any) -> dict[str, Method[Any]]:
        asked.append(task.unit)
        return {"fake": Method(ways[type(task)], "fake")}

    monkeypatch.setattr(Contestants, "methods", fake)
    return asked


def scores_of(config: BenchmarkConfig) -> dict[str, dict[str, float]]:
    (section,) = measure(config)
    return section.rows


# --- tables ----------------------------------------------------------------------------------


def test_published_rows_stand_below_measured_ones_with_their_source() -> None:
    rows = {"tiny": {"mAP": 0.5, "detection mAP": NAN}}
    published = (Published("Ours", {"mAP": 0.844, "other": 1.0}, "A paper"),)
    assert table(rows, published).splitlines() == [
        "| method | mAP | detection mAP | source |",
        "|---|---|---|---|",
        "| tiny | 0.500 | - | measured |",
        "| Ours | 0.844 | - | published: A paper |",
    ]
    assert table({}, published).splitlines()[0] == "| method | mAP | other | source |"
    assert table({}, ()) == ""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_published_scores_are_shares_in_columns_that_are_measured(
    name: str, fakes: list[str], tmp_path: Path
) -> None:
    (row,) = scores_of(
        BenchmarkConfig(name, str(TREES[name](tmp_path / "data")), baseline=("sift",))
    ).values()
    assert all(0 <= value <= 1 for value in row.values() if value == value)
    for published in PUBLISHED.get(name, ()):
        assert set(published.scores) <= set(row)
        assert all(0 < value < 1 for value in published.scores.values())


def test_the_names_on_the_command_line_are_the_benchmarks() -> None:
    assert set(get_args(Name)) == {"all", *BENCHMARKS}
    assert list(SOURCES) == list(BENCHMARKS)
    assert set(TREES) == set(BENCHMARKS)


def test_the_published_figures_of_segswap_are_those_of_its_paper() -> None:
    first = {name: rows[0].scores for name, rows in PUBLISHED.items()}
    assert (first["internet"]["P"], first["internet"]["J"]) == (0.928, 0.70)
    assert first["brueghel"] == {"mAP": 0.844, "detection mAP": 0.818}
    assert first["tokyo247"] == {"R@1": 0.800, "R@5": 0.860, "R@10": 0.879}
    assert first["pitts30k"] == {"R@1": 0.847, "R@5": 0.935, "R@10": 0.956}


# --- the command -----------------------------------------------------------------------------


def test_table_and_json_hold_the_same_scores(
    fakes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, path = write_pascal(tmp_path / "data"), tmp_path / "scores.json"
    config = BenchmarkConfig("pf-pascal", str(root), baseline=("sift",), json=str(path))
    assert benchmark(config) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("keypoints of objects of one kind, PF-PASCAL, 1 pair:\n\n| method |")
    content = json.loads(path.read_text())
    record = content["benchmarks"]["pf-pascal"]
    assert content["settings"]["name"] == "pf-pascal"
    assert record["measured"]
    assert record["folder"] == str(root)
    cells = " | ".join(f"{value:.3f}" for value in record["scores"]["fake"].values())
    assert f"| fake | {cells} | measured |" in printed
    assert record["published"][0]["method"] == "SFNet"
    assert "| SFNet | - | 0.787 | - | - | - | - | published: Lee et al." in printed


def test_all_marks_what_is_not_there(
    fakes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pascal(tmp_path / "pf-pascal")
    write_davis(tmp_path / "davis")
    path = tmp_path / "scores.json"
    benchmark(BenchmarkConfig("all", str(tmp_path), baseline=("sift",), json=str(path)))
    assert fakes == ["pairs", "queries"]
    printed = capsys.readouterr().out
    assert f"not measured here: no data at {tmp_path / 'brueghel'}" in printed
    assert "| SegSwap transformer, COCO segments | 0.844 | 0.818 | published:" in printed
    records = json.loads(path.read_text())["benchmarks"]
    assert list(records) == list(BENCHMARKS)
    measured = [name for name, record in records.items() if record["measured"]]
    assert measured == ["pf-pascal", "davis-retrieval"]
    assert records["tss"]["scores"] == {}


def test_all_looks_at_all_data_before_the_work_begins(fakes: list[str], tmp_path: Path) -> None:
    write_pascal(tmp_path / "pf-pascal")
    (write_davis(tmp_path / "davis") / "masks" / "goat" / "00001.png").unlink()
    with pytest.raises(ValueError, match=r"davis-retrieval: .*00001\.png is missing"):
        measure(BenchmarkConfig("all", str(tmp_path), baseline=("sift",)))
    assert fakes == []


def test_a_limit_is_said_and_taken(
    fakes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(write_brueghel(tmp_path / "data"))
    benchmark(BenchmarkConfig("brueghel", root, baseline=("sift",), limit=2))
    assert "artworks, 2 queries (--limit 2: not to be compared" in capsys.readouterr().out


# --- two passes ------------------------------------------------------------------------------


def test_kept_predictions_are_scored_again_and_not_made_again(
    fakes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(write_brueghel(tmp_path / "data"))
    config = BenchmarkConfig(
        "brueghel", root, baseline=("sift",), predictions=str(tmp_path / "kept")
    )
    before = scores_of(config)
    monkeypatch.setattr(command, "_make", lambda *arguments: pytest.fail("made again"))
    assert scores_of(config) == before
    # The scores are of the files.
    files = sorted((tmp_path / "kept" / "fake" / "brueghel").glob("*.npz"))
    assert len(files) == 3
    with np.load(files[2]) as arrays:
        np.savez(files[2], **{**arrays, "numbers": arrays["numbers"][::-1]})
    assert scores_of(config)["fake"]["mAP"] < before["fake"]["mAP"]


def test_predictions_of_other_data_settings_or_methods_are_refused_by_name(
    fakes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_brueghel(tmp_path / "data")
    kept = {"baseline": ("sift",), "predictions": str(tmp_path / "kept")}
    measure(BenchmarkConfig("brueghel", str(root), **kept))
    with pytest.raises(ValueError, match="predictions of another limit; choose another"):
        measure(BenchmarkConfig("brueghel", str(root), **kept, limit=1))
    labels = root / "brueghelTest.json"
    labels.write_text(labels.read_text() + " ")
    with pytest.raises(ValueError, match="another annotations;"):
        measure(BenchmarkConfig("brueghel", str(root), **kept))
    (root / "Image" / "work_5.png").unlink()
    with pytest.raises(ValueError, match="another annotations, images;"):
        measure(BenchmarkConfig("brueghel", str(root), **kept))
    write_brueghel(root)
    other = {"fake": Method(BY_COLOUR, "another")}
    monkeypatch.setattr(Contestants, "methods", lambda self, task: other)
    with pytest.raises(ValueError, match="another method;"):
        measure(BenchmarkConfig("brueghel", str(root), **kept))


def test_the_key_beside_predictions_says_what_they_are_of(fakes: list[str], tmp_path: Path) -> None:
    root, kept = str(write_brueghel(tmp_path / "data")), tmp_path / "kept"
    config = BenchmarkConfig("brueghel", root, baseline=("sift",), predictions=str(kept))
    measure(config)
    path = kept / "fake" / "brueghel" / "predictions.json"
    key = json.loads(path.read_text())
    assert (key["method"], key["benchmark"], key["limit"]) == ("fake", "brueghel", None)
    path.write_text(json.dumps({**key, "style": "old"}))
    with pytest.raises(ValueError, match="another style;"):
        measure(config)


@pytest.mark.parametrize("name", ["brueghel", "pf-willow", "coseg"])
def test_a_damaged_or_missing_prediction_is_named(
    name: str, fakes: list[str], tmp_path: Path
) -> None:
    root, kept = TREES[name](tmp_path / "data"), tmp_path / "kept"
    config = BenchmarkConfig(name, str(root), baseline=("sift",), predictions=str(kept))
    measure(config)
    folder = kept / "fake" / name
    path = next(path for path in sorted(folder.iterdir()) if path.suffix in (".npz", ".png"))
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{path.name}.*delete .*{name} and run again"):
        measure(config)
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name}.*delete"):
        measure(config)
    (folder / "predictions.json").write_text("{")
    with pytest.raises(ValueError, match=r"predictions\.json .*; delete"):
        measure(config)


def test_an_unfinished_pass_is_made_again(
    fakes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, kept = str(write_brueghel(tmp_path / "data")), str(tmp_path / "kept")
    config = BenchmarkConfig("brueghel", root, baseline=("sift",), predictions=kept)

    def stops(images: Any) -> Any:
        raise KeyboardInterrupt

    ways = {"fake": Method(Search(stops, None), "fake")}
    with monkeypatch.context() as patch:
        patch.setattr(Contestants, "methods", lambda self, task: ways)
        with pytest.raises(KeyboardInterrupt):
            measure(config)
    assert scores_of(config)["fake"]["mAP"] == 1


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "nothing to measure"),
        ({"baseline": ("features",)}, "features needs the --model"),
        ({"baseline": ("sift", "sift")}, "sift twice"),
        ({"baseline": ("sift",), "limit": 0}, "--limit is 0"),
        ({"baseline": ("sift",), "confidence": 1.0}, "--confidence is 1.0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BenchmarkConfig("tss", "here", **flags)


def test_all_of_a_folder_without_any_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no benchmark; expected folders named internet"):
        measure(BenchmarkConfig("all", str(tmp_path), baseline=("sift",)))
    with pytest.raises(ValueError, match="not a folder"):
        measure(BenchmarkConfig("all", str(tmp_path / "none"), baseline=("sift",)))


def test_errors_are_said_in_a_line_and_unknown_names_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: object, status: int) -> str:
        """What the command says on standard error."""
        monkeypatch.setattr(sys, "argv", ["segswap-benchmark", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == status
        return capsys.readouterr().err

    error = said("brueghel", tmp_path / "none", "--baseline", "sift", status=1)
    assert error.startswith("error: brueghel: ")
    assert error.count("\n") == 1
    assert "github.com/XiSHEN0220/SegSwap" in error
    assert "brueghel" in said("bruegel", tmp_path, "--baseline", "sift", status=2)
    root = write_pascal(tmp_path / "data")
    error = said("pf-pascal", root, "--model", "nowhere", status=1)
    assert error.startswith("error: no model 'nowhere'")


def test_help_says_where_the_data_of_every_benchmark_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["segswap-benchmark", "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = "".join(capsys.readouterr().out.replace("│", " ").split())
    for one in BENCHMARKS.values():
        assert "".join(one.source.split()) in shown
