"""Pairs, their ground truth and their shards on disk; nothing here imports torch."""
