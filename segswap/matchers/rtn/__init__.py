"""RTN: local affine maps, found again and again with warped activations (Kim et al., 2018)."""
