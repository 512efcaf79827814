"""What a matcher keeps of images, so that each is encoded once and matched with many."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

Images = slice | Sequence[int] | Tensor


class Encoding(Mapping[str, Tensor]):
    """Tensors by name, each with one entry an image along its first dimension.

    Args:
        tensors: (B, ...) each, with the same B of at least 1 image; on one device.

    Raises:
        ValueError: there is none, or they are of different numbers of images.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        counts = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"an encoding's tensors are of {counts} images; expected one number")
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def images(self) -> int:
        """How many images are encoded."""
        return len(next(iter(self._tensors.values())))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self._tensors.values())).device

    def at(self, images: Images) -> "Encoding":
        """The encodings of some of the images, in the order given: a slice shares memory, numbers
        (a sequence, or an int64 tensor (n,)) copy.
        """
        chosen = images if isinstance(images, slice | Tensor) else list(images)
        return self._each(lambda tensor: tensor[chosen])

    def split(self, count: int) -> list["Encoding"]:
        """Parts of at most `count` images each, sharing memory."""
        return [self.at(slice(at, at + count)) for at in range(0, self.images, count)]

    def repeated(self, count: int) -> "Encoding":
        """One image's encoding `count` times, without copying.

        Raises:
            RuntimeError: it is of several images.
        """
        return self._each(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def half(self) -> "Encoding":
        """The same, floating-point numbers in half precision."""
        return self._each(lambda tensor: tensor.half() if tensor.is_floating_point() else tensor)

    def float(self) -> "Encoding":
        """The same, floating-point numbers in single precision."""
        return self._each(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)

    def to(self, device: torch.device | str) -> "Encoding":
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device))

    @classmethod
    def cat(cls, parts: Sequence["Encoding"]) -> "Encoding":
        """All images of several encodings, one after another.

        Raises:
            ValueError: there are none, or they hold tensors of different names.
        """
        names = {tuple(part) for part in parts}
        if len(names) != 1:
            raise ValueError(f"expected encodings of the same tensors, got {sorted(names)}")
        return cls({name: torch.cat([part[name] for part in parts]) for name in names.pop()})

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Encoding":
        return Encoding({name: change(tensor) for name, tensor in self._tensors.items()})
