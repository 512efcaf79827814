"""What segswap-demo does: pairs, a training, scores and a page about them."""

import shlex
import shutil
import time
from pathlib import Path

from generators.sources.photos import photos
from pipelines.demo.config import DemoConfig
from pipelines.evaluate.config import EvalConfig
from pipelines.evaluate.job import score_methods, table
from pipelines.generation.config import Amount, GenerateConfig, Inputs, Styling
from pipelines.generation.job import generate
from pipelines.pages.report import write_report
from pipelines.training.config import TrainConfig
from pipelines.training.job import train
from segswap.models.hub import DEFAULT_MODEL
from segswap.models.model import load

_STYLES = ("coffee.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "rocket.jpg")
_SIZE = 192  # pixels, in training: less than the matcher's own takes, and so more steps
MARK = ".segswap-demo"  # in a demo's folder: what else is there may be replaced


def demo(config: DemoConfig) -> int:
    """Run the demo; returns the exit status of the first part that fails, or 0."""
    start = time.monotonic()
    out = Path(config.out)
    pairs, run = out / "pairs", out / "run"
    _clear(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    amount = Amount(config.pairs, config.val_pairs, val_share=0.34, shard_pairs=50)
    _copy_styles(out / "styles")
    styling = Styling("histogram", str(out / "styles"))
    making = GenerateConfig(str(pairs), amount, Inputs(demo=True), styling=styling)
    training = TrainConfig(
        (str(pairs),), str(run), steps=config.steps, size=_SIZE, every=max(1, config.steps // 2)
    )
    for job in (lambda: generate(making), lambda: train(training)):
        if status := job():
            return status
    names = (str(run), DEFAULT_MODEL)
    scores = score_methods(EvalConfig(str(pairs), model=names, baseline=("sift",)))
    print("\n\n".join(table(rows) for rows in scores.values()))
    quoted = [shlex.quote(str(path)) for path in (pairs, run, styling.styles)]
    commands = [
        f"segswap-generate {quoted[0]} --demo --pairs {amount.pairs} "
        f"--val-pairs {amount.val_pairs} --val-share {amount.val_share} "
        f"--shard-pairs {amount.shard_pairs} --style {styling.style} --styles {quoted[2]}",
        f"segswap-look {quoted[0]} --out gallery.html",
        f"segswap-train {quoted[0]} --out {quoted[1]} --steps {training.steps} "
        f"--size {training.size} --every {training.every}",
        f"segswap-eval {quoted[0]} --model {quoted[1]} {DEFAULT_MODEL} --baseline sift",
    ]
    models = {"the matcher trained here": load(run), DEFAULT_MODEL: load(DEFAULT_MODEL)}
    page = write_report(out, pairs, run, models, scores, commands)
    print(f"{page} after {time.monotonic() - start:.0f} s")
    return 0


def _copy_styles(folder: Path) -> None:
    """A folder of style pictures: colourful ones inside scikit-image."""
    folder.mkdir()
    images = photos()[1]
    for name in _STYLES:
        shutil.copy(images / name, folder)


def _clear(out: Path) -> None:
    """Remove what an earlier demo left, and nothing else.

    Raises:
        ValueError: the folder holds something that no demo made.
    """
    made = {MARK, "pairs", "styles", "run", "pictures", "report.html"}
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; expected a folder for the demo")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = found - made if MARK in found else found
    if foreign:
        raise ValueError(f"{out} holds files of yours ({sorted(foreign)[0]}); choose another")
    for name in found:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
