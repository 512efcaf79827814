"""Matchers: networks that find what two images share, and which point goes where."""
