"""The layers that adapt a frozen backbone's features, and their published weights."""

import os

from torch import Tensor, nn

from segswap.backbones.weights import read_content

KERNELS = (5, 3)  # sides of the convolutions of the two levels, the finer one first
_PUBLISHED = ("state_dict1", "state_dict2")  # what the released files call the two levels


class AdaptedLevel(nn.Module):
    """Twice x + ReLU(BN(conv(x))); its tensors have the names of the released code.

    Args:
        channels: of the features.
        side: of the convolutions' kernels, odd.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Sequential(
                nn.Conv2d(channels, channels, side, padding=side // 2),
                nn.BatchNorm2d(channels), nn.ReLU(),
            ) for _ in range(2)
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) of the same."""
        features = features + self.conv1(features)
        adapted: Tensor = features + self.conv2(features)
        return adapted


class Adaptation(nn.Module):
    """Two levels of a backbone, adapted; the same for both images.

    Args:
        channels: of the two levels, the finer one first.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(map(AdaptedLevel, channels, KERNELS))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The adapted maps of the two levels, (B, channels, h, w) each."""
        return [level(features) for level, features in zip(self.levels, maps, strict=True)]

    def load_published(self, path: str | os.PathLike[str]) -> None:
        """Take over the weights of a file in the layout of the released code: state_dict1 of the
        finer level and state_dict2 of the coarser one.

        Raises:
            ValueError: the file cannot be read, or is of another layout or another backbone.
        """
        content = read_content(path)
        if not isinstance(content, dict) or not set(_PUBLISHED) <= content.keys():
            raise ValueError(
                f"{path} holds no weights of SFNet's adaptation layers: expected "
                f"{' and '.join(_PUBLISHED)}, as in the released files"
            )
        for level, name in zip(self.levels, _PUBLISHED, strict=True):
            try:
                level.load_state_dict(content[name])
            except (RuntimeError, TypeError, AttributeError) as error:
                said = " ".join(str(error).split())[:200]
                raise ValueError(
                    f"{name} of {path} does not fit the adaptation layers of this backbone "
                    f"({said}); the released weights are for --preset published"
                ) from error
