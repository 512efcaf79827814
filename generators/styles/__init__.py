"""The looks of a pair: colours of paintings, by histograms or by a network."""
