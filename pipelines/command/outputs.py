"""Where a command's results go, looked at before the work begins rather than after it."""

from pathlib import Path


def check_file(flag: str, name: str) -> None:
    """Refuse a name that no file can be written under.

    Args:
        flag: that gave the name, for the message.

    Raises:
        ValueError: it is a folder, or in none.
    """
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{flag} {name} is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"{flag} {name} is in no folder: {path.parent} is not there; make it")


def check_folder(flag: str, name: str) -> None:
    """Refuse a file in a folder's place.

    Raises:
        ValueError: it is a file, or below one.
    """
    path = Path(name)
    for place in (path, *path.parents):
        if place.is_file():
            raise ValueError(f"{flag} {name}: {place} is a file; expected a folder")
