"""The card of a model: what it is, how to load it, what it scored."""

import json
from pathlib import Path
from typing import Any

from segswap.files.records import ABSENT, NONE, read_record
from segswap.models.hub import SCORES

_SCORES = {
    "val_mask_iou": "mask IoU", "val_mask_precision": "mask precision",
    "val_mask_recall": "mask recall", "val_pck_1": "PCK@1%", "val_pck_3": "PCK@3%",
    "val_pck_5": "PCK@5%", "val_false_area": "false area",
    "val_kind_iou": "mask IoU of kinds", "val_kind_pck_10": "PCK@10% of kinds",
}  # fmt: skip


def model_card(
    settings: dict[str, Any], parameters: int, held: int, where: str, run: Path | None
) -> str:
    """The card as Markdown, with the front matter that the Hugging Face hub reads.

    Args:
        settings: of the model, as in model.json.
        parameters: how many numbers the model has.
        held: how many of them are in its file; the others are those of the backbone that ships.
        where: what `segswap.load` is to be given.
        run: the folder that the model was loaded from; the scores of a training run in it are
            shown.
    """
    shared = "" if held == parameters else _SHARED.format(held=f"{held:,}")
    return _CARD.format(
        matcher=settings["matcher"], size=settings["size"], parameters=f"{parameters:,}",
        shared=shared, where=json.dumps(where), settings=json.dumps(settings, indent=1),
        scores=_scores(run / SCORES) if run else "",
    )  # fmt: skip


def _scores(path: Path) -> str:
    """The scores that a training run left beside its weights; nothing where there are none."""
    if not path.is_file():
        return ""
    names = dict.fromkeys(_SCORES, (float, NONE, ABSENT))
    best = read_record(path, {"step": (int,), **names})
    shown = {title: best[k] for k, title in _SCORES.items() if best.get(k) is not None}
    return (
        f"\n## Scores\n\nOn val pairs during training, at step {best['step']}:\n\n"
        f"| {' | '.join(shown)} |\n|{'---|' * len(shown)}\n"
        f"| {' | '.join(f'{value:.3f}' for value in shown.values())} |\n\n"
        "PCK@k%: share of points of the true masks whose match is off by at most k% of the image's "
        "side. False area: share of two images that share nothing which the masks cover. Of kinds: "
        "on pairs of held-out pictures of one kind, PCK@10% of the thing's box.\n"
    )


_SHARED = ", {held} of them in this file, the others in the backbone that ships with segswap"

_CARD = """---
library_name: segswap
tags:
- image-matching
- correspondence
- co-segmentation
---

# A segswap matcher

Given two images, it finds the region that both show, as a mask of each, and where every point of
the one lies in the other. Matcher: `{matcher}`, {parameters} parameters{shared}; both images are
brought to {size} x {size} pixels.

## Use

```python
import segswap

model = segswap.load({where})
match = model.match("a.jpg", "b.jpg")
match.source_mask, match.target_mask  # float32 in [0, 1], at each image's size
match.points([[0.5, 0.5]])            # where normalised source points lie in the target
match.score                           # how much the images share
```
{scores}
## Licence

The weights are bound by the licences of the pictures that they were trained on, which this card
does not know: say here which they were. segswap's code is under the MIT licence, the backbone that
ships with it under Apache-2.0.

## Settings

```json
{settings}
```
"""
