"""Small collections of pictures on disk, and segswap-discover on them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from conftest import textured
from runs import in_process

from pipelines.discovery.config import main as discover_command
from segswap.models.model import Model, load


def save_small(folder: Path, size: int = 128) -> Path:
    """The model that ships, on smaller images, where it takes a fraction of the time."""
    model = load("segswap-tiny")
    Model(model.matcher, {**model.settings, "size": size}).save(folder)
    return folder


def make_photos(folder: Path, images: int = 6, showing: int = 4) -> Path:
    """Textured pictures, a detailed patch in the first of them, and two files that are no image."""
    folder.mkdir(parents=True)
    patch = textured(100, 100, 7)
    for number in range(images):
        picture = cv2.GaussianBlur(textured(160, 200, 10 + number), (0, 0), 3) // 2 + 60
        if number < showing:
            y, x = 10 + 12 * number, 90 - 20 * number
            picture[y : y + 100, x : x + 100] = patch
        cv2.imwrite(str(folder / f"photo-{number}.png"), np.ascontiguousarray(picture))
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "empty.png").write_bytes(b"")
    return folder


def command(*arguments: object) -> list[str]:
    """A command line of segswap-discover."""
    return [str(Path(sys.executable).parent / "segswap-discover"), *map(str, arguments)]


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it as a user would, without workers in this process; returns the finished one."""
    if "--workers=0" in arguments:
        done = in_process(discover_command, "segswap-discover", *arguments)
    else:
        done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def results(out: Path) -> dict[str, bytes]:
    """Everything that a finished run leaves, but features and matches, by path."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in
        ("index", "index-mirrored", "pairs")
    }  # fmt: skip
