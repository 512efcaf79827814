"""Opening files that somebody else has named: what cannot be one is told in words, and never waited
for.
"""

import errno
import os
import stat
from typing import BinaryIO

from segswap.files import storage

MISSING = "missing"
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
_REASONS = {
    errno.ENOENT: MISSING,
    errno.EACCES: "may not be read by this user",
    errno.EPERM: "may not be read by this user",
    errno.ELOOP: "is a link that leads back to itself",
    errno.ENOTDIR: "lies below a file, where no file can lie",
    errno.ENAMETOOLONG: "has a name that is too long for the disk",
}


class UnreadableError(ValueError):
    """A file that cannot be opened; `reason` says why in a few words, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


def open_regular(path: storage.PathLike, what: str = "a file") -> BinaryIO:
    """A local file, to be read. Pipes, sockets and devices are refused, which might wait for ever.

    Args:
        what: is expected, for the message.

    Raises:
        UnreadableError: there is none, it is none, or it may not be read.
    """
    name = storage.local_path(path)
    try:
        kind = stat.S_IFMT(os.stat(name).st_mode)
        if kind != stat.S_IFREG:
            raise UnreadableError(name, f"is {_KINDS.get(kind, 'something else')}, not {what}")
        return open(name, "rb")
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"cannot be opened ({error.strerror})")
        raise UnreadableError(name, reason) from error
    except UnreadableError:
        raise
    except ValueError as error:  # NUL, or half of a surrogate pair
        raise UnreadableError(name, "has a name that no file can have") from error
