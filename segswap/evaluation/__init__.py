"""Scores of predictions, and real pairs whose correspondences are known."""
