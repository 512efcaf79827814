"""A detail found in a collection of images."""
