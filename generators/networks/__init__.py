"""The networks that proposers hold, and how they learn; none is imported before it is used."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "weights"  # of proposers, a folder each
