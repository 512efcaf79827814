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


def persons() -> tuple[Path, ...]:
    """Photographs of three persons, which come with scikit-image and matplotlib."""
    import matplotlib  # nothing else here has a use for it

    images = Path(skimage.__file__).parent / "data"
    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return images / "astronaut.png", images / "camera.png", hopper
