"""One command at a time writes to a folder, on this machine and on all that share it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from segswap.files import storage

LOCK = ".segswap.lock"  # in the folder, while a command works in it, or after it was killed
_TRIES = 20  # to open a lock, while others remove theirs
_held: set[int] = set()  # open files


class InUseError(RuntimeError):
    """Another command is writing to the folder."""


@contextmanager
def locked(folder: storage.PathLike) -> Iterator[None]:
    """While it is entered, no other command enters it for the same folder, which is made if it is
    not there.

    The lock is the system's own on an open file (flock): it ends with its process, however that
    ends, also on another machine that shares the folder, so that none is ever left to be broken. A
    folder that was made and holds nothing at the end is removed again. Without effect at URLs,
    in folders that cannot be written to, and on file systems without such locks.

    Raises:
        InUseError: another command is at work in it, in this process or elsewhere.
    """
    if storage.is_url(folder) or not find_spec("fcntl"):
        yield
        return
    path = Path(storage.absolute(folder)) / LOCK
    made = [place for place in (path.parent, *path.parent.parents) if not place.exists()]
    file = _entered(path)
    try:
        yield
    finally:
        if file is not None:
            # While it is locked: whoever has opened it meanwhile sees that it is another's.
            path.unlink(missing_ok=True)
            _close(file)
        for place in made:
            with suppress(OSError):  # there is something in it
                place.rmdir()


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in a folder, or no folder, locks aside."""
    return not folder.is_dir() or all(path.name == LOCK for path in folder.iterdir())


def _entered(path: Path) -> int | None:
    """The open file by which a folder is locked; None where there can be none."""
    import fcntl  # not on every system

    for _ in range(_TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its holder has ended meanwhile, and removed the folder
            continue
        except OSError:  # what is then written there fails, too, and says why
            return None
        _held.add(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 200, 0).decode(errors="replace").strip()
            _close(file)
            raise InUseError(
                f"{path.parent} is in use: {holder or 'another command'} is writing to it; wait "
                "until that has ended, or choose another folder"
            ) from error
        except OSError:
            _close(file)
            return None
        if _is(path, file):
            with suppress(OSError):  # a full disk; it is only for the message
                os.truncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return file
        _close(file)  # its holder has ended meanwhile, and removed it
    return None


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except OSError:
        return False


def _close(file: int) -> None:
    _held.discard(file)
    os.close(file)


def _leave_to_the_parent() -> None:
    """A forked process, such as one that loads samples, may outlive the one that has the lock."""
    for file in list(_held):
        _close(file)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
