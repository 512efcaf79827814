"""Shards and folders of images become the batches that a matcher is trained on."""
