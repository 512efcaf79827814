"""MaCoSNet: one warp and two masks of a pair, learned from pictures of one kind."""
