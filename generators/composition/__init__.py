"""One pair: segments, a background and a map become two images and their truth."""
