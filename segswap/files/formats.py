"""Which image files are read: by the endings of their names, and by what Pillow calls them."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from PIL import features

# Pillow's names, and how files of that kind end. No others: Pillow starts Ghostscript for what
# turns out to be PostScript, whatever its name.
_KINDS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
_EXPORT = "export them as JPEG, PNG or TIFF"
# What makes the kinds readable that are not always so.
_INSTALL = {
    "JPEG2000": "install a Pillow that has it: pip install --force-reinstall pillow",
    "AVIF": "pip install 'pillow>=11.3'",
    "HEIF": "pip install pillow-heif",
}
# Pictures that are never read.
_FOREIGN = (
    ".jxl", ".psd", ".psb", ".xcf", ".svg", ".pdf", ".eps", ".ai", ".exr", ".hdr", ".tga", ".djvu",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw",
)  # fmt: skip


def _read(kind: str) -> bool:
    if kind == "HEIF":
        return find_spec("pillow_heif") is not None
    needed = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}.get(kind)
    return needed is None or needed in features.get_supported()


EXTENSIONS = frozenset(suffix for kind, own in _KINDS.items() if _read(kind) for suffix in own)

# Endings of pictures that are not read, and what to do about it.
NOT_READ = {
    suffix: _INSTALL.get(kind, _EXPORT)
    for kind, own in _KINDS.items() if not _read(kind) for suffix in own
} | dict.fromkeys(_FOREIGN, _EXPORT)  # fmt: skip


@cache
def pillow_formats() -> tuple[str, ...]:
    """What Pillow may take an image for; packages that it needs for some of them are imported."""
    if _read("HEIF"):
        # Not one of our dependencies: whoever has such pictures installs it.
        import_module("pillow_heif").register_heif_opener()
    return tuple(kind for kind in _KINDS if _read(kind))
