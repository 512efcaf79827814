"""Parts of segswap that need further packages, which pip installs when they are asked for."""

from importlib.util import find_spec

# The modules of each extra of pyproject.toml, but for those that come with all of segswap.
EXTRAS = {
    "generate": ("pycocotools", "ray", "skimage"),
    "train": ("albumentations", "matplotlib", "pycocotools", "ray", "tensorboard"),
    "search": ("faiss", "numba", "ray"),
}


class MissingExtraError(ImportError):
    """A package is not installed that an extra brings; the message says how to install it."""


def need_extra(what: str, *extras: str) -> None:
    """Check that the packages of some extras are there, without importing them.

    Args:
        what: what needs them, as its user knows it: the message's first words.
        extras: names in `EXTRAS`.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    for module in dict.fromkeys(module for extra in extras for module in EXTRAS[extra]):
        if find_spec(module) is None:
            raise MissingExtraError(
                f"{what} needs {module}, which is not installed; "
                f"run: pip install 'segswap[{','.join(extras)}]'"
            )
