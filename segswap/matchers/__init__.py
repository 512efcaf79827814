"""Matchers: networks that find the region two images share, and which point goes where."""

from segswap.matchers.base import Matcher, Matches, build
from segswap.matchers.correlation.correlation import CorrelationMatcher
from segswap.matchers.transformer import TransformerMatcher

__all__ = ["CorrelationMatcher", "Matcher", "Matches", "TransformerMatcher", "build"]
