"""From batches to weights: what is minimised, and the loop that does it."""
