"""Published scores, to be read below measured ones; only such as were checked against a source."""

from dataclasses import dataclass

from pipelines.benchmark.base import Scores

_SEGSWAP = "Shen et al. 2022, arXiv 2110.15904"
_SFNET = "Lee et al., CVPR 2019, table of PCK at 0.1, object box"


@dataclass(frozen=True)
class Published:
    """A row of a published table.

    Attributes:
        method: as the source calls it, with what it was trained on where that matters.
        scores: shares from 0 to 1, by the columns of the benchmark's scores.
        source: where they are printed.
    """

    method: str
    scores: Scores
    source: str


def _internet(method: str, precision: str, overlap: str) -> Published:
    names = ("P Airplane", "P Car", "P Horse", "P"), ("J Airplane", "J Car", "J Horse", "J")
    scores: Scores = {}
    for columns, values in zip(names, (precision, overlap), strict=True):
        known = values.split()
        # The mean alone where no more is printed.
        scores |= dict(zip(columns[-len(known) :], map(float, known), strict=True))
    return Published(method, scores, _SEGSWAP)


def _details(method: str, found: float, detected: float) -> Published:
    return Published(method, {"mAP": found, "detection mAP": detected}, _SEGSWAP)


def _places(method: str, *recalls: float) -> Published:
    columns = ("R@1", "R@5", "R@10")
    return Published(method, dict(zip(columns, recalls, strict=True)), _SEGSWAP)


def _keypoints(method: str, box: float) -> Published:
    return Published(method, {"PCK@0.10 box": box}, _SFNET)


_COCO, _FOUND = "COCO segments", "unsupervised segments"
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "internet": (
        _internet(
            f"SegSwap transformer, {_COCO}", "0.941 0.928 0.916 0.928", "0.67 0.82 0.60 0.70"
        ),
        _internet(f"SegSwap transformer, {_FOUND}", "0.916", "0.68"),
        _internet(f"SegSwap NC-Net, {_COCO}", "0.795", "0.42"),
        _internet(f"SegSwap NC-Net, {_FOUND}", "0.819", "0.44"),
        _internet("Chen et al. (MaCoSNet)", "0.941 0.940 0.922 0.935", "0.65 0.82 0.63 0.70"),
        _internet("DOCS (supervised)", "0.933", "0.70"),
    ),
    "brueghel": (
        _details(f"SegSwap transformer, {_COCO}", 0.844, 0.818),
        _details(f"SegSwap transformer, {_FOUND}", 0.818, 0.794),
        _details(f"SegSwap NC-Net, {_COCO}", 0.833, 0.737),
        _details(f"SegSwap NC-Net, {_FOUND}", 0.828, 0.734),
        _details("MoCo v2 with the discovery score", 0.808, 0.796),
    ),
    "tokyo247": (
        _places(f"SegSwap transformer, {_COCO}", 0.800, 0.860, 0.879),
        _places(f"SegSwap transformer, {_FOUND}", 0.740, 0.829, 0.860),
        _places(f"SegSwap NC-Net, {_COCO}", 0.854, 0.883, 0.892),
        _places(f"SegSwap NC-Net, {_FOUND}", 0.841, 0.870, 0.889),
        _places("Patch-NetVLAD, RANSAC", 0.860, 0.886, 0.905),
        _places("SuperGlue", 0.882, 0.902, 0.902),
    ),
    "pitts30k": (
        _places(f"SegSwap transformer, {_COCO}", 0.847, 0.935, 0.956),
        _places(f"SegSwap NC-Net, {_COCO}", 0.868, 0.944, 0.958),
        _places(f"SegSwap NC-Net, {_FOUND}", 0.864, 0.943, 0.956),
        _places("Patch-NetVLAD, RANSAC", 0.887, 0.945, 0.959),
        _places("SuperGlue", 0.887, 0.951, 0.964),
    ),
    "pf-willow": (
        _keypoints("SFNet", 0.74),
        _keypoints("WeakAlign", 0.71),
        _keypoints("A2Net", 0.69),
        _keypoints("CNNGeo", 0.68),
        _keypoints("Proposal Flow", 0.56),
    ),
    "pf-pascal": (
        _keypoints("SFNet", 0.787),
        _keypoints("WeakAlign", 0.72),
        _keypoints("A2Net", 0.67),
        _keypoints("CNNGeo", 0.68),
        _keypoints("Proposal Flow", 0.45),
    ),
}
