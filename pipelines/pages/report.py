"""A report page of a run: scores, curves, pairs and their ground truth, held-out matches."""

import html
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.job import HEADINGS, Rows
from pipelines.pages import gallery
from pipelines.pages.look import read_samples
from segswap.data.pair import Pair
from segswap.data.shards import read_pairs
from segswap.evaluation.known import KnownPair
from segswap.evaluation.stereo import stereo_pair
from segswap.files.images import encode_jpeg
from segswap.files.storage import write_atomically
from segswap.models.model import Model

_SHOWN = 6  # held-out pairs of which matches are shown

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--card);
  max-width: 1060px; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.9rem; margin-bottom: .2rem; } h2 { margin-top: 2.4rem; }
h3 { font-size: 1rem; font-weight: 600; }
p { max-width: 46rem; } .note { color: var(--faint); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .9rem; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; } td.best { font-weight: 700; color: #1c9a6c; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr));
  gap: 1.1rem; }
figure { margin: 0; } figure img, .wide { width: 100%; border-radius: 6px; display: block; }
code, pre { background: var(--page); border-radius: 4px; padding: .1rem .3rem; font-size: .88rem; }
pre { padding: .8rem 1rem; overflow-x: auto; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
"""


def write_report(
    folder: Path, dataset: Path, run: Path, models: dict[str, Model],
    scores: dict[str, Rows], commands: list[str],
) -> Path:  # fmt: skip
    """Write report.html and its pictures into a folder.

    Args:
        dataset: the pairs that were trained on and scored.
        run: the folder of the training run; its curves are shown.
        models: by what the page calls them; what each finds in the held-out pairs is shown.
        scores: by set of pairs ("pairs" and "stereo" are shown) and method.
        commands: the command lines that do the same by hand.

    Returns:
        The page's path.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    made = [
        gallery.pair_html(pair, members)
        for members, pair in islice(read_samples(dataset, "train"), 6)
    ]
    held_out = list(islice(read_pairs(dataset, "val"), _SHOWN))
    real = stereo_pair()
    found, stereo = [], []
    for number, (name, model) in enumerate(models.items()):
        paths = [
            _save(pictures / f"match-{pair.index}-{number}.jpg", _picture(model, pair))
            for pair in held_out
        ]
        found.append(f"<h3>{html.escape(name)}</h3>{_figures(paths)}")
        picture = _save(pictures / f"stereo-{number}.jpg", _picture(model, real, height=300))
        stereo.append(f"<h3>{html.escape(name)}</h3>{_figures([picture])}")
    write_atomically(pictures / "curves.png", (run / "curves.png").read_bytes())
    page = _PAGE.format(
        style=gallery.STYLE + _STYLE, script=gallery.SCRIPT, table=_table(scores["pairs"]),
        stereo_table=_table(scores["stereo"]),
        made="".join(made), found="".join(found), stereo="".join(stereo),
        commands=html.escape("\n".join(commands)),
    )  # fmt: skip
    write_atomically(folder / "report.html", page.encode())
    return folder / "report.html"


def _picture(model: Model, pair: Pair | KnownPair, height: int = 320) -> NDArray[np.uint8]:
    prediction = model.predict(pair.source, pair.target)
    return prediction.draw(pair.source, pair.target, height=height)


def _save(path: Path, picture: NDArray[np.uint8]) -> str:
    write_atomically(path, encode_jpeg(picture, 88))
    return f"{path.parent.name}/{path.name}"


def _figures(paths: list[str]) -> str:
    images = (f'<figure><img src="{html.escape(path)}" alt=""></figure>' for path in paths)
    return f'<div class="grid">{"".join(images)}</div>'


def _table(rows: Rows) -> str:
    """Scores as HTML, the best of each marked; scores that no method has are left out."""
    flat = {name: asdict(scores) for name, scores in rows.items()}
    columns = [c for c in HEADINGS if not all(np.isnan(values[c]) for values in flat.values())]
    titles = [HEADINGS[column] for column in columns]
    lines = ["<tr><th>method</th>" + "".join(f"<th>{title}</th>" for title in titles) + "</tr>"]
    for name, values in flat.items():
        cells = []
        for column in columns:
            others = [row[column] for row in flat.values()]
            best = np.nanmin(others) if column == "false_area" else np.nanmax(others)
            mark = ' class="best"' if values[column] == best else ""
            cells.append(f"<td{mark}>{values[column]:.3f}</td>")
        lines.append(f"<tr><td>{html.escape(name)}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>segswap demo</title>
<meta name="viewport" content="width=device-width"><style>{style}</style></head><body>
<h1>segswap demo</h1>
<p class="note">Pairs made from the photographs inside scikit-image, a matcher trained on them on
this machine for some minutes ("run" in the tables), the model that ships with segswap, which was
trained for longer on more images, and what both find in photographs that neither has seen.</p>

<h2>Scores on held-out pairs</h2>
{table}
<p class="note">mask IoU: overlap of found and true region. PCK@k%: share of points whose match is
off by at most k% of the image side. False area: share of the image claimed to be shared with an
unrelated image.</p>

<h2>Matches on held-out pairs</h2>
<p>What a matcher takes to be shared is left bright; points of one colour belong together.</p>
{found}

<h2>A real pair</h2>
{stereo_table}
<p class="note">Two photographs of one scene with measured disparity.</p>
{stereo}

<h2>Training</h2>
<img class="wide" src="pictures/curves.png" alt="losses and val scores over the steps">

<h2>Pairs to learn from</h2>
<p>Left a photograph with segments, right the background that they were blended into; points are
joined along the recorded ground truth. Point at an object in either image to see the same place in
the other one. <code>segswap-look</code> makes a page of any dataset's pairs.</p>
<div class="pairs">
{made}</div>

<h2>The same by hand</h2>
<pre>{commands}</pre>
<script>{script}</script>
</body></html>
"""
