"""What pages show pictures with: data: URLs, outlines as SVG paths, colours."""

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

# Colours of objects 1, 2, ...; told apart with any kind of colour vision, on light and on dark.
_COLOURS = ("#ff5a4d", "#35c4ff", "#ffd02b", "#b58cff", "#4ddb7e", "#ff8ad1")


def colour(label: int) -> str:
    """The CSS colour of object 1, 2, ..."""
    return _COLOURS[(label - 1) % len(_COLOURS)]


def data_url(jpeg: bytes) -> str:
    """A JPEG file as a URL that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def outline(mask: NDArray[np.bool_], width: int, height: int) -> str:
    """The contours of a mask (H, W) as an SVG path.

    Args:
        width, height: of the picture that it is drawn over, which may have another size; the path
            is in its pixels, x = 0 the left edge.
    """
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    scale = np.array([width / mask.shape[1], height / mask.shape[0]])
    path = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.5 / float(scale.max()), True)[:, 0]
        places = ((points + 0.5) * scale).round(1)
        path.append("M" + "L".join(f"{x:g} {y:g}" for x, y in places) + "Z")
    return "".join(path)
