"""Which images may be used, by licence and category; and indexes kept between jobs."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from generators.sources.cache import cached_index, fingerprint
from generators.sources.coco import coco_index
from generators.sources.index import Index
from generators.sources.licences import NOT_STATED, Licence, allows, is_known
from segswap.files.cache import cache_folder

# COCO's own, with what each allows: sharing pairs made of the image, and selling them.
COCO = {
    Licence("Attribution-NonCommercial-ShareAlike License",
            "http://creativecommons.org/licenses/by-nc-sa/2.0/"): (True, False),
    Licence("Attribution-NonCommercial License",
            "http://creativecommons.org/licenses/by-nc/2.0/"): (True, False),
    Licence("Attribution-NonCommercial-NoDerivs License",
            "http://creativecommons.org/licenses/by-nc-nd/2.0/"): (False, False),
    Licence("Attribution License", "http://creativecommons.org/licenses/by/2.0/"): (True, True),
    Licence("Attribution-ShareAlike License",
            "http://creativecommons.org/licenses/by-sa/2.0/"): (True, True),
    Licence("Attribution-NoDerivs License",
            "http://creativecommons.org/licenses/by-nd/2.0/"): (False, False),
    Licence("No known copyright restrictions", "http://flickr.com/commons/usage/"): (True, True),
    Licence("United States Government Work", "http://www.usa.gov/copyright.shtml"): (True, True),
    Licence("CC0 1.0 Universal"): (True, True),
    Licence("CC BY-NC 4.0"): (True, False),
    Licence("CC-BY-ND-4.0"): (False, False),
    Licence("All rights reserved"): (False, False),
    NOT_STATED: (False, False),
}  # fmt: skip


# As people write them, and what is like them: by name, address, sharing pairs, selling them.
WRITTEN: list[tuple[str, str, bool, bool]] = [
    ("CC BY NC 4.0", "", True, False),
    ("CC BY ND 4.0", "", False, False),
    ("All rights reserved; attribution required", "", False, False),
    ("CC-BY-4.0", "", True, True), ("cc by-sa 3.0", "", True, True),
    ("CC-BY-3.0-US", "", True, True), ("CC_BY_NC_SA_2.5", "", True, False),
    ("CC BY 4.0 International", "", True, True), ("CC-BY-SA-NC-4.0", "", False, False),
    ("CC-BY-4.0-NC", "", False, False), ("CC BY 4.0 (non-commercial)", "", False, False),
    ("CC BY 4.0, for research only", "", False, False), ("CC-BY-4.0 OR MIT", "", False, False),
    ("CC0-1.0", "", True, True), ("MIT", "", True, True), ("Apache-2.0", "", True, True),
    ("BSD-3-Clause", "", True, True), ("Submit your own", "", False, False),
    ("Permitted with attribution", "", False, False), ("bsd-like", "", False, False),
    ("Attribution 4.0 International", "", True, True), ("Public Domain Mark 1.0", "", True, True),
    ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International", "", False,
     False),
    ("", "https://creativecommons.org/licenses/by/4.0/deed.en", True, True),
    ("", "HTTP://CreativeCommons.org/licenses/by-nc/2.0/uk/legalcode?x=1", True, False),
    ("https://creativecommons.org/licenses/by-sa/4.0/", "", True, True),
    ("Some name", "https://creativecommons.org/licenses/by/4.0/", True, True),
    ("All rights reserved", "https://creativecommons.org/licenses/by/4.0/", False, False),
    ("Non-commercial", "https://creativecommons.org/licenses/by/4.0/", False, False),
    ("Attribution License", "http://creativecommons.org/licenses/by-nc/2.0/", True, False),
    ("MIT", "https://creativecommons.org/licenses/by-nd/2.0/", False, False),
    ("CC-BY-4.0", "https://example.org/terms", True, True),
    ("CC-BY-4.0", "https://creativecommons.org/licenses/by-nc-plus/4.0/", False, False),
    ("", "https://creativecommons.org.example/licenses/by/4.0/", False, False),
    ("", "https://example.org/?creativecommons.org/licenses/by/4.0/", False, False),
    ("", "https://spdx.org/licenses/CC-BY-4.0.html", True, True),
    ("", "", False, False), ("GPL-3.0-only", "", False, False), ("None", "", False, False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "url", "share", "sell"), WRITTEN)
def test_only_what_is_recognised_is_allowed(name: str, url: str, share: bool, sell: bool) -> None:
    licence = Licence(name, url)
    assert allows(licence, "any")
    assert (allows(licence, "shareable"), allows(licence, "commercial")) == (share, sell)
    assert is_known(licence) or not share


@pytest.mark.parametrize("licence", COCO, ids=lambda licence: licence.name)
def test_what_licences_allow(licence: Licence) -> None:
    assert allows(licence, "any")
    assert (allows(licence, "shareable"), allows(licence, "commercial")) == COCO[licence]


def test_real_images_by_licence(data: Path) -> None:
    mini = data / "coco_mini"
    inputs = (mini / "annotations" / "instances_train2017.json", mini / "train2017")
    content = json.loads(inputs[0].read_text())
    named = {item["id"]: Licence(item["name"], item["url"]) for item in content["licenses"]}
    for use, column in (("shareable", 0), ("commercial", 1)):
        index, skipped = coco_index(*inputs, 0.015, 0.5, licenses=use)
        kept = {index.image_name(i) for i in range(len(index))}
        assert kept == {
            image["file_name"]
            for image in content["images"]
            if COCO[named[image["license"]]][column]
        }
        assert skipped == []  # left out on purpose, and counted apart
        assert sum(index.header["left_out"].values()) == 80 - len(kept)
        assert sum(index.images_by_licence().values()) == len(kept)
        for i in range(len(index)):
            assert allows(index.image_licence(i), use)


def test_categories(data: Path) -> None:
    mini = data / "coco_mini"
    inputs = (mini / "annotations" / "instances_train2017.json", mini / "train2017", 0.015, 0.5)
    index, _ = coco_index(*inputs, categories=["person", "tv"])
    whole, _ = coco_index(*inputs)
    for chosen in (index, whole):
        names = {chosen.category_name(int(c)) for c in chosen.arrays["segments"][:, 1]}
        assert (names == {"person", "tv"}) == (chosen is index)
    # What an image shows does not depend on what is copied.
    np.testing.assert_array_equal(index.arrays["present"], whole.arrays["present"])
    assert index.header["filtered"]["category"] > 100
    with pytest.raises(ValueError, match=r"no category is called 'persons'.*nearest are person"):
        coco_index(*inputs, categories=["persons"])


def test_the_command_line_leaves_images_out(generate: Run, coco: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate(out, *coco, "--licenses", "commercial", "--pairs", 4, "--size", 96, "--workers=0")
    (inputs,) = json.loads((out / "segswap.json").read_text())["inputs"]
    assert inputs["images"] < 80
    assert all(name.startswith("licence: ") for name in inputs["left_out"])
    assert not any("NonCommercial" in name for name in inputs["licences"])
    refused = generate(tmp_path / "no", *coco, "--categories", "cow", "hors", status=1)
    assert "no category is called 'hors'; the nearest are horse" in refused.stderr


# --- kept between jobs -------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGSWAP_CACHE", str(tmp_path / "cache"))


def test_an_index_is_built_once(shapes_index: Index) -> None:
    built = []

    def build() -> tuple[Index, list]:
        built.append(1)
        return shapes_index, [{"image": "x", "reason": "y"}]

    for identity, times in (({"a": 1}, 1), ({"a": 1}, 1), ({"a": 2}, 2)):
        index, skipped = cached_index(identity, build)
        assert len(built) == times
        assert skipped == [{"image": "x", "reason": "y"}]
        assert index.header == shapes_index.header
        for name, array in shapes_index.arrays.items():
            np.testing.assert_array_equal(index.arrays[name], array)
    kept = cache_folder() / "indexes"
    assert len(list(kept.iterdir())) == 2


def test_an_index_that_was_half_written_is_built_again(
    shapes_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, place: object) -> None:
        if Path(str(place)).name == "header.json":
            raise OSError(errno.ENOSPC, "no space left")
        rename(source, place)

    rename = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert cached_index({}, lambda: (shapes_index, []))[0] is shapes_index
    for _ in range(2):
        index, _ = cached_index({}, lambda: (shapes_index, []))
        assert index is not shapes_index
        assert index.header == shapes_index.header
        assert set(index.arrays) == set(shapes_index.arrays)


def test_without_a_cache_folder_it_still_works(
    shapes_index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEGSWAP_CACHE", str(tmp_path / "file"))
    assert cached_index({}, lambda: (shapes_index, []))[0] is shapes_index


def test_fingerprints_see_every_change(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    seen = {fingerprint(folder)}

    def changed() -> bool:
        before = len(seen)
        seen.add(fingerprint(folder))
        return len(seen) > before

    assert not changed()
    (folder / "below" / "a.png").write_bytes(b"1")
    assert changed()
    (folder / "below" / "a.png").write_bytes(b"12")
    assert changed()
    (folder / "below" / "a.png").rename(folder / "a.png")
    assert changed()
    (folder / "b.png").symlink_to(tmp_path / "nothing")
    assert changed()
    (tmp_path / "nothing").write_bytes(b"now something")
    assert changed()
    assert not changed()
    assert fingerprint(folder / "a.png") != fingerprint(folder / "b.png")
