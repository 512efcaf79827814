"""segswap-demo ends in a report that is whole, and takes nobody's files away."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipelines.demo.config import DemoConfig
from pipelines.demo.job import MARK, demo


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo_ends_in_a_whole_report_and_replaces_an_earlier_one(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "demo"
    earlier = [out / name for name in ("pairs/old.tar", "run/last.pt", "pictures/pair-99.jpg")]
    for path in (*earlier, out / "report.html", out / MARK):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old")
    done = subprocess.run(
        [script("segswap-demo"), "--out", str(out), "--pairs=3", "--val-pairs=2", "--steps=2"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{out / 'report.html'} after" in done.stdout
    assert not any(path.exists() for path in earlier if path.name != "last.pt")
    page = (out / "report.html").read_text()
    images = re.findall(r'<img[^>]* src="([^"]+)"', page)
    shown = [name for name in images if not name.startswith("data:")]
    # Of two models the held-out matches and the stereo pair; of one, three persons; the curves; the
    # gallery's images are in the page.
    assert len(shown) == len(set(shown)) == 2 * (2 + 1) + 3 + 1
    assert page.count('<article class="pair"') == 3
    assert len(images) - len(shown) >= 2 * 3
    assert {path.name for path in (out / "pictures").iterdir()} == {
        name.removeprefix("pictures/") for name in shown
    }
    for name in shown:
        with Image.open(out / name) as picture:
            picture.load()
    assert not re.search(r"\{\w*\}", page.split("</style>")[1].split("<script>")[0])
    for method in ("run (correlation)", "segswap-base (semantic)", "sift+ransac"):
        for scores in (7, 3):  # on the pairs, and on the stereo pair
            row = rf'="row">{re.escape(method)}</th>(<td[^>]*>[\d.]+</td>){{{scores}}}</tr>'
            assert re.search(row, page)
    assert f"segswap-generate {out}/pairs --demo --pairs 3" in page


@pytest.mark.parametrize("name", ["thesis.txt", "pictures/holiday.jpg", "run/marathon.txt"])
def test_a_folder_with_other_files_is_refused_and_left_alone(name: str, tmp_path: Path) -> None:
    # "pictures" and "run" are what a demo calls its own folders, but no demo made these.
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ValueError, match="files of yours"):
        demo(DemoConfig(str(tmp_path)))
    assert path.read_text() == "mine"
    with pytest.raises(ValueError, match="is a file"):
        demo(DemoConfig(str(path)))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_files_put_into_a_demos_folder_are_not_taken_away(tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        demo(DemoConfig(str(tmp_path)))
    assert (tmp_path / "notes.txt").read_text() == "mine"
