"""Encodings are taken apart and put together image by image, all their tensors at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segswap.matchers.encoding import Encoding


def encoding(images: int, seed: int = 0) -> Encoding:
    generator = torch.Generator().manual_seed(seed)
    return Encoding({
        "fine": torch.rand(images, 3, 4, 6, generator=generator),
        "cells": torch.randint(0, 9, (images, 5), generator=generator),
    })  # fmt: skip


def equal(first: Encoding, second: Encoding) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


@given(st.integers(1, 7), st.integers(1, 4))
def test_parts_put_together_are_the_whole(images: int, count: int) -> None:
    whole = encoding(images)
    parts = whole.split(count)
    assert [part.images for part in parts[:-1]] == [count] * (len(parts) - 1)
    assert equal(Encoding.cat(parts), whole)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_images_are_taken_in_the_order_asked_for(numbers: list[int]) -> None:
    whole = encoding(5)
    taken = whole.at(numbers)
    assert equal(taken, whole.at(torch.tensor(numbers)))
    for place, number in enumerate(numbers):
        assert equal(taken.at([place]), whole.at(slice(number, number + 1)))


def test_one_image_is_repeated_without_copying() -> None:
    one = encoding(1)
    many = one.repeated(4)
    assert many.images == 4
    assert many["fine"].data_ptr() == one["fine"].data_ptr()
    with pytest.raises(RuntimeError):
        encoding(2).repeated(3)


def test_half_precision_is_for_numbers_with_fractions_alone() -> None:
    half = encoding(2).half()
    assert half["fine"].dtype == torch.float16
    assert half["cells"].dtype == torch.int64
    assert half.float()["fine"].dtype == torch.float32
    torch.testing.assert_close(half.float()["fine"], encoding(2)["fine"], atol=1e-3, rtol=0)


def test_a_tensor_may_be_a_file(tmp_path: Path) -> None:
    whole = encoding(3)
    for name, tensor in whole.items():
        np.save(tmp_path / f"{name}.npy", tensor.numpy())
    mapped = Encoding({
        name: torch.from_numpy(np.load(tmp_path / f"{name}.npy", mmap_mode="c")) for name in whole
    })  # fmt: skip
    assert equal(mapped.at([2, 0]), whole.at([2, 0]))


def test_tensors_of_unlike_numbers_of_images_or_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'a': 2, 'b': 3.*expected one number"):
        Encoding({"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)})
    with pytest.raises(ValueError, match="expected one number"):
        Encoding({})
    with pytest.raises(ValueError, match="encodings of the same tensors"):
        Encoding.cat([encoding(1), Encoding({"fine": torch.zeros(1, 2)})])
