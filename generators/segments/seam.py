"""Where a run's classifier sees what it names, by SEAM (Wang et al., CVPR 2020), refined."""

from generators.segments.common.classes import Learned


class Seam(Learned):
    """The things of the classes that a run of SEAM has learned."""
