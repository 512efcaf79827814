"""JSON and arrays of strangers: what is wrong is named by file and key, nothing is unpickled."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from segswap.files.arrays import map_array
from segswap.files.records import (
    ABSENT,
    NONE,
    Schema,
    all_checked,
    check_inside,
    parse_json,
    read_record,
)

SCHEMA: Schema = {
    "size": (int,),
    "name": (str, NONE),
    "on": (bool, ABSENT),
    "share": (float, ABSENT),
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"), ("{", "is not JSON"), (b"\xff\xfe", "is not JSON"),
        ("[" * 100_000, "nested too deeply|not JSON"), ("[]", "is a list; expected an object"),
        ("null", "is null; expected an object"), ("9" * 5000, "is not JSON"),
        ({"name": "a"}, "has no size; expected an integer"),
        ({"size": 1}, "has no name; expected text or null"),
        ({"size": 320.0, "name": "a"}, "size is a number; expected an integer"),
        ({"size": "320", "name": "a"}, "size is text; expected an integer"),
        ({"size": True, "name": "a"}, "size is true or false; expected an integer"),
        ({"size": None, "name": "a"}, "size is null; expected an integer"),
        ({"size": 1, "name": ["a"]}, "name is a list; expected text or null"),
        ({"size": 1, "name": "a", "on": 1}, "on is an integer; expected true or false"),
        ({"size": 1, "name": "a", "share": {}}, "share is an object; expected a number"),
    ],
)  # fmt: skip
def test_what_is_no_record_is_named(text: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    text = json.dumps(text) if isinstance(text, dict) else text
    path.write_bytes(text if isinstance(text, bytes) else str(text).encode())
    with pytest.raises(ValueError, match=said) as caught:
        read_record(path, SCHEMA)
    assert str(caught.value).startswith(str(path))


def test_further_keys_and_whole_numbers_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"size": 3, "name": null, "share": 1, "more": [1]}')
    assert read_record(tmp_path / "a.json", SCHEMA)["share"] == 1
    assert all_checked([1, 2], (int,), "numbers") == [1, 2]
    with pytest.raises(ValueError, match=r"numbers\[1\] is text; expected an integer"):
        all_checked([1, "2"], (int,), "numbers")
    with pytest.raises(ValueError, match="not JSON"):
        parse_json("nul", "that")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "", ".", "a\0b"])
def test_paths_lead_nowhere_else(name: str) -> None:
    with pytest.raises(ValueError, match="expected a path within its folder"):
        check_inside(name, "a mask")
    assert check_inside("masks/0..1.png", "a mask")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("harmed",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read as an array"), (b"", "cannot be read as an array"),
        (b"nothing", "cannot be read as an array"), (pickle.dumps([1]), "cannot be read"),
        (np.array([Payload()], object), "cannot be read as an array"),
        (np.zeros(3), r"holds float64 of shape \(3,\); expected floating-point numbers, 2 dim"),
        (np.zeros((2, 2), int), "holds int64"), (np.array([["a"]]), "holds <U1"),
        ({"a": np.zeros((2, 2))}, "is no .npy file, but holds several"),
    ],
)  # fmt: skip
def test_what_is_no_array_is_named(content: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif isinstance(content, dict):
        with open(path, "wb") as file:
            np.savez(file, **content)
    elif content is not None:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said) as caught:
        map_array(path, "f", 2)
    assert str(path) in str(caught.value)
    assert not Path("harmed").exists()


def test_an_array_cut_short_or_with_a_shape_beyond_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, np.zeros((8, 8)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="cannot be read"):
        map_array(path, "f")
    for shape in (b"(8, 99999999999999999999)", b"(-8, 8)"):
        end = whole.index(b"\n") - whole.index(b"(8, 8)")
        text = (shape + b", }").ljust(end)
        path.write_bytes(whole.replace(whole[whole.index(b"(8, 8)") :][:end], text, 1))
        with pytest.raises(ValueError, match="cannot be read"):
            map_array(path, "f")
