"""What counts as repeated: the very same thing, or things of one kind."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from segswap.models.model import Model

Same = Literal["thing", "kind"]
CONFIDENCE = 0.85  # that a node must have
SIGMA = 1.2  # cells; published: 0.8, 1.2 and 5 by collection
RETURN_CELLS = 1.0  # how far from its start, in cells, a cell's way there and back may end
LEAST_IMAGES = 3  # of a group: a false match of two images looks no different from a true one
# Two things of one kind differ in shape: the way there and back ends farther off, and matches that
# belong together agree less. Chosen on 16 of the bus pictures of
# the set `coseg`, which says too much good of these settings there.
_KIND_CONFIDENCE, _KIND_SIGMA, _KIND_TOLERANCE = 0.5, 5.0, 6.0


@dataclass(frozen=True)
class Settings:
    """What counts as repeated. By default as the paper has it, for the very same thing.

    Attributes:
        same: whether two regions must show the very same thing, or may show two of one kind.
        confidence: that a match must have to be looked at, 0 to 1.
        sigma: how far matches may be off and still agree, in cells of the model's grid.
        tolerance: how far from its start the way there and back may end, in cells.
        least_images: of a group, 2 or more.
    """

    same: Same = "thing"
    confidence: float = CONFIDENCE
    sigma: float = SIGMA
    tolerance: float = RETURN_CELLS
    least_images: int = LEAST_IMAGES

    def __post_init__(self) -> None:
        if self.same not in get_args(Same):
            raise ValueError(f"same is {self.same!r}; expected thing or kind")
        if not 0 <= self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; expected 0 to below 1")
        if not self.sigma > 0:
            raise ValueError(f"sigma is {self.sigma}; expected more than 0 cells")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance is {self.tolerance}; expected 0 cells or more")
        if self.least_images < 2:
            raise ValueError(f"least_images is {self.least_images}; expected at least 2")

    @classmethod
    def of(
        cls, same: Same, confidence: float | None = None, sigma: float | None = None,
        least_images: int = LEAST_IMAGES,
    ) -> "Settings":  # fmt: skip
        """What suits things, or kinds of them; None for what goes with these.

        Raises:
            ValueError: a number is out of its range.
        """
        kinds = same == "kind"
        if confidence is None:
            confidence = _KIND_CONFIDENCE if kinds else CONFIDENCE
        if sigma is None:
            sigma = _KIND_SIGMA if kinds else SIGMA
        tolerance = _KIND_TOLERANCE if kinds else RETURN_CELLS
        return cls(same, confidence, sigma, tolerance, least_images)


def same_for(model: "Model", same: Same | None) -> Same:
    """What is asked for, by default what a model knows: kinds of things where it knows any.

    Raises:
        ValueError: kinds are asked for of a model that knows none.
    """
    if same == "kind" and not model.matcher.kinds:
        raise ValueError(
            f"the model is a {model.settings['matcher']} matcher, which finds the very same thing "
            "alone; leave out --same kind, or choose segswap-base"
        )
    return same or ("kind" if model.matcher.kinds else "thing")
