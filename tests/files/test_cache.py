"""Where things are kept between jobs."""

import sys
from pathlib import Path

import pytest

from segswap.files.cache import cache_folder


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have places of their own")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "home/.cache/segswap"),
        ({"XDG_CACHE_HOME": ""}, "home/.cache/segswap"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/segswap"),
        ({"XDG_CACHE_HOME": "xdg", "SEGSWAP_CACHE": "own"}, "own"),
    ],
)
def test_the_cache_folder_is_the_users(
    variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "SEGSWAP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value and str(tmp_path / value))
    assert cache_folder() == tmp_path / expected
    assert not list(tmp_path.iterdir()), "asking makes no folder"
