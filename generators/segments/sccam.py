"""Where a run's classifier sees what it names, by SC-CAM (Chang et al., CVPR 2020), refined."""

from generators.segments.common.classes import Learned


class Sccam(Learned):
    """The things of the classes that a run of SC-CAM has learned."""
