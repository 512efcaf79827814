"""segswap-demo: its settings and its entry point."""

from dataclasses import dataclass

from pipelines.command import cli


@dataclass(frozen=True)
class DemoConfig:
    """Make pairs from built-in photographs, train a matcher on them, score it, write a report.

    Beside the trained matcher stand the model that ships with segswap, which never saw the held-out
    photographs either, and SIFT with RANSAC.
    """

    out: str
    """Folder for pairs, run and report; an earlier demo in it is replaced."""
    pairs: int = 600
    """Pairs to train on."""
    val_pairs: int = 40
    """Held-out pairs, from photographs of their own."""
    steps: int = 180
    """Training steps; about a second each on two cores."""


def main() -> None:
    """Entry point of segswap-demo."""
    cli.run(DemoConfig, _demo, extras=("generate", "train"))


def _demo(config: DemoConfig) -> int:
    from pipelines.demo.job import demo  # --help has no use for what it imports

    return demo(config)
