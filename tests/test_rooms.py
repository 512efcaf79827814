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


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def test_modules_and_functions_can_be_read_at_a_glance() -> None:
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= 350, f"{path} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines < 60, f"{path}: {node.name} has {lines} lines"
