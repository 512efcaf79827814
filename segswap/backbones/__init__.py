"""Networks of features, pretrained or fresh, and the weights files that they are read from."""
