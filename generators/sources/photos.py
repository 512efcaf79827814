"""The built-in photographs: those inside scikit-image, with polygons drawn for this project."""

from importlib.resources import files
from pathlib import Path

import skimage


def photos() -> tuple[Path, Path]:
    """The annotations (COCO instances JSON) and the folder of their images."""
    return (
        Path(str(files("generators.sources") / "photos.json")),
        Path(skimage.__file__).parent / "data",
    )
