"""The looks of a pair: colours of paintings, by histograms or by a network."""

SIDE = 512  # pixels to the side, at which images go through the network
