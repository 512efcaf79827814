"""Neural style transfer by adaptive instance normalisation.

X. Huang, S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance
Normalization", ICCV 2017 (arXiv 1703.06868).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from generators.styles import SIDE
from segswap import geometry

# One past each of relu1_1, relu2_1, relu3_1 and relu4_1 in the encoder.
_STAGES = (4, 11, 18, 31)
_EPSILON = 1e-5
Widths = tuple[int, int, int, int]
VGG19: Widths = (64, 128, 256, 512)
FIRST = ("2.weight", "9.weight", "16.weight", "29.weight")
"""The encoder's first convolutions at strides 1, 2, 4 and 8."""


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3), nn.ReLU(inplace=True)]


def _halved() -> nn.Module:
    return nn.MaxPool2d(2, ceil_mode=True)


def _doubled() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="nearest")


def build_encoder(widths: Widths = VGG19) -> nn.Sequential:
    """VGG-19 (Simonyan, Zisserman, arXiv 1409.1556) up to relu4_1, with reflection padding.

    It takes RGB in [0, 1]: (B, 3, H, W); its first layer, 1x1, turns this into what VGG was trained
    on. Layers stand at the places that they have in the published `vgg_normalised.pth`.

    Args:
        widths: channels at strides 1, 2, 4 and 8.
    """
    a, b, c, d = widths
    return nn.Sequential(
        nn.Conv2d(3, 3, 1), *_convolution(3, a), *_convolution(a, a), _halved(),
        *_convolution(a, b), *_convolution(b, b), _halved(),
        *_convolution(b, c), *_convolution(c, c), *_convolution(c, c), *_convolution(c, c),
        _halved(), *_convolution(c, d),
    )  # fmt: skip


def build_decoder(widths: Widths = VGG19) -> nn.Sequential:
    """The encoder's mirror image, from relu4_1's features to RGB in about [0, 1].

    Layers stand at the places that they have in the published `decoder.pth`.
    """
    a, b, c, d = widths
    return nn.Sequential(
        *_convolution(d, c), _doubled(),
        *_convolution(c, c), *_convolution(c, c), *_convolution(c, c), *_convolution(c, b),
        _doubled(), *_convolution(b, b), *_convolution(b, a), _doubled(),
        *_convolution(a, a), *_convolution(a, 3)[:-1],
    )  # fmt: skip


def widths_of(encoder: nn.Sequential) -> Widths:
    """The channels that an encoder was built with."""
    state = encoder.state_dict()
    a, b, c, d = (len(state[key]) for key in FIRST)
    return a, b, c, d


def stages(encoder: nn.Sequential, images: Tensor) -> list[Tensor]:
    """Features of images (B, 3, H, W) at relu1_1, relu2_1, relu3_1 and relu4_1."""
    features, first = [], 0
    for last in _STAGES:
        images = encoder[first:last](images)
        features.append(images)
        first = last
    return features


def mean_std(features: Tensor) -> Tensor:
    """Mean and standard deviation of every channel of features (B, C, H, W): float32 (2, B, C)."""
    variance, mean = torch.var_mean(features.float(), dim=(2, 3))
    return torch.stack([mean, (variance + _EPSILON).sqrt()])


def adapt(features: Tensor, style: Tensor, alpha: Tensor) -> Tensor:
    """Give features (B, C, H, W) a style's mean and standard deviation: equations 8 and 14.

    Args:
        features: of the content.
        style: the style's (2, B, C), as from `mean_std`.
        alpha: strength (B): 0 leaves the features as they are, 1 is the style's statistics.
    """
    mean, std = mean_std(features)
    share = alpha[:, None]
    factor = 1 - share + share * style[1] / std
    offset = share * (style[0] - style[1] / std * mean)
    return (features * factor[..., None, None] + offset[..., None, None]).to(features.dtype)


class DoubledConvolution(nn.Module):
    """Nearest doubling, reflection padding and a 3x3 convolution in one, with 4/9 of the products.

    Of a doubled image the kernel sees only 2x2 different pixels at a time, so that each of the four
    places in a doubled pixel has a 2x2 kernel of its own, of sums of the 3x3 kernel's weights. And
    reflecting the doubled image at its border repeats the pixels at the border of the original.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.channels = convolution.out_channels
        # sums[p, y] are the 3x3 kernel's rows that fall on row y of the two, for rows 2i + p.
        weight = convolution.weight.data
        sums = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        kernels = torch.einsum("oiab,pya,qxb->pqoiyx", weight, sums, sums)
        self.places = nn.ModuleList()
        for kernel in kernels.flatten(0, 1):
            place = nn.Conv2d(convolution.in_channels, self.channels, 2)
            place.weight.data, place.bias = kernel, convolution.bias
            self.places.append(place)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, 2 H, 2 W)."""
        batch, _, height, width = images.shape
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        made = images.new_empty(batch, height, 2, width, 2, self.channels)  # channels last
        for number, place in enumerate(self.places):
            row, column = divmod(number, 2)
            part = padded[:, :, row : row + height + 1, column : column + width + 1]
            made[:, :, row, :, column] = place(part).permute(0, 2, 3, 1)
        return made.view(batch, 2 * height, 2 * width, self.channels).permute(0, 3, 1, 2)


def faster(decoder: nn.Sequential) -> nn.Sequential:
    """The same function as a decoder's, its three doublings joined with what follows them."""
    layers: list[nn.Module] = []
    rest = iter(decoder)
    for layer in rest:
        if isinstance(layer, nn.Upsample):
            next(rest)  # the padding
            convolution = next(rest)
            assert isinstance(convolution, nn.Conv2d)
            layer = DoubledConvolution(convolution)
        layers.append(layer)
    return nn.Sequential(*layers)


class AdaIN:
    """Restyles images with an encoder and a decoder.

    On a CPU, images go through two at a time on one thread: a pair's, so that its pixels do not
    depend on what else is restyled.

    Attributes:
        device: where it runs.
        at_once: images in one batch.
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential, device: str) -> None:
        self.device = torch.device(device)
        self.at_once = 2 if self.device.type == "cpu" else 32
        self._dtype = torch.bfloat16 if fast_bfloat16(self.device) else torch.float32
        self._encoder, self._decoder = self._placed(encoder), self._placed(faster(decoder))

    def _placed(self, net: nn.Sequential) -> nn.Sequential:
        net = net.eval().requires_grad_(False).to(self.device, self._dtype)
        return net.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def statistics(self, picture: NDArray[np.uint8]) -> Tensor:
        """What the style of a picture (H, W, 3) comes down to, from its central square.

        Returns:
            Means and standard deviations of relu4_1's channels: float32 (2, C).
        """
        height, width = picture.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = picture[top : top + side, left : left + side]
        with _one_thread():
            return mean_std(self._encoder(self._tensor([square])))[:, 0]

    @torch.inference_mode()
    def restyle(
        self, images: Sequence[NDArray[np.uint8]], styles: Sequence[Tensor], alphas: Sequence[float]
    ) -> list[NDArray[np.uint8]]:
        """Images (H, W, 3) in other styles, each of its own size.

        Args:
            images: RGB; the two images of a pair follow each other.
            styles: for each image, the style's `statistics`.
            alphas: for each image, the strength from 0 to 1.
        """
        styled = []
        for first in range(0, len(images), self.at_once):
            part = slice(first, first + self.at_once)
            with _one_thread():
                features = self._encoder(self._tensor(images[part]))
                strength = torch.tensor(alphas[part], device=self.device)
                adapted = adapt(features, torch.stack(list(styles[part]), dim=1), strength)
                decoded = self._decoder(adapted).float().mul(255).round().clamp(0, 255)
            pixels = decoded.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            for image, made in zip(images[part], pixels, strict=True):
                height, width = image.shape[:2]
                styled.append(geometry.resize(np.ascontiguousarray(made), width, height))
        return styled

    def _tensor(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Images as the encoder takes them: (B, 3, SIDE, SIDE), channels last in memory."""
        pixels = np.stack([geometry.resize(image, SIDE, SIDE) for image in images])
        tensor = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        return tensor.to(self._dtype) / 255


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32; it must not be emulated."""
    if device.type != "cpu":
        return True
    # torch has no public name for this; without the private ones float32 is right everywhere.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch on one thread: how a sum is parted among threads may change its last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
