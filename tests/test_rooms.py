"""The house is as ARCHITECTURE.md shows it; lint-imports, part of `make lint`, holds its doors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("segswap", "generators", "pipelines")
ROOMS = sorted(
    path.parent.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).rglob("__init__.py")
)


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_every_room_says_what_it_is_for(room: Path) -> None:
    said = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    assert said
    assert said.endswith(".")


def test_architecture_shows_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    picture = text[: text.index("## ")]
    for room in ROOMS:
        if len(room.parts) == 2:
            assert room.name in picture.split(), f"{room} is not in ARCHITECTURE.md's picture"
