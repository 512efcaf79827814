"""Files by local path or by URL of an object store: read, listed, and written whole.

Paths and `file://` URLs are files, opened as such. Other URLs are asked of their store, see
`stores`. An object appears at its URL in one piece, when its upload has ended: nothing there needs
a temporary name.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from segswap.files.stores import StorageError, ask, no_room_says, open_store, version_of

PathLike = str | os.PathLike[str]

_URL = re.compile(r"(?!file://)(\w[\w+.-]*(::\w[\w+.-]*)*://|pipe:)")
_READ_LIMIT = 2 << 30  # bytes of one file that is read into memory


# --- names -----------------------------------------------------------------------------------


def is_url(path: PathLike) -> bool:
    """Whether a path is the URL of something that is not a local file."""
    return isinstance(path, str) and _URL.match(path) is not None


def absolute(path: PathLike) -> str:
    """A path that means the same in every folder and process: a URL, or an absolute path."""
    return os.fspath(path).rstrip("/") if is_url(path) else str(Path(local_path(path)).resolve())


def join(base: PathLike, *names: str) -> str:
    """The path of a file below a folder; names may hold /."""
    return "/".join((local_path(base).rstrip("/"), *names))


def base_name(path: PathLike) -> str:
    """The last part of a path; of a store's root, the bucket."""
    return absolute(path).rpartition("/")[2]


def local_path(path: PathLike) -> str:
    """The path of a local file as `open` takes it in this process's locale."""
    name = os.fspath(path).removeprefix("file://")
    try:
        return os.fsdecode(name_bytes(name))
    except UnicodeEncodeError:  # no file is called so
        return name


def name_bytes(name: str) -> bytes:
    """The bytes of a file's name, whichever locale it was read or written down in.

    Raises:
        UnicodeEncodeError: it is no text that a name may be.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape")


def text_of(name: str) -> str:
    """A file's name as text that is the same in every locale: its bytes as UTF-8, those that are
    none as \\udc80 to \\udcff.
    """
    return name_bytes(name).decode("utf-8", "surrogateescape")


# --- reading ---------------------------------------------------------------------------------


def read_bytes(path: PathLike, first: int | None = None) -> bytes:
    """The content of a file, or its first so many bytes.

    Raises:
        FileNotFoundError: there is none.
        StorageError: it cannot be read from its store, or is over 2 GiB.
    """
    if not is_url(path):
        with open(local_path(path), "rb") as file:
            return file.read(-1 if first is None else first)
    url = os.fspath(path)
    # A range instead of the whole: s3fs would ask for the size first, one more request each time.
    end = _READ_LIMIT if first is None else first
    try:
        data = ask(url, "read", lambda fs, key: fs.cat_file(key, start=0, end=end))
    except StorageError as error:
        # An empty object has no range.
        if not isinstance(error.__cause__, TimeoutError) and size(url) == 0:
            return b""
        raise
    if len(data) == _READ_LIMIT:
        raise StorageError(f"{url} is over {_READ_LIMIT >> 30} GiB; expected a smaller file")
    return data


def size(path: PathLike) -> int | None:
    """A file's bytes; None where there is no file."""
    try:
        if not is_url(path):
            return os.stat(local_path(path)).st_size
        found = ask(os.fspath(path), "looked up", lambda fs, key: fs.info(key))
    except FileNotFoundError:
        return None
    return found["size"] if found["type"] == "file" else None


def entries(folder: PathLike) -> list[str]:
    """Names of the files and folders directly in a folder, sorted; none where it is missing.

    Raises:
        NotADirectoryError: it is a file.
        StorageError: it cannot be listed, or its bucket does not exist.
    """
    return sorted(sizes(folder))


def sizes(folder: PathLike) -> dict[str, int | None]:
    """Bytes of the files directly in a folder by their names, None of folders; raises as `entries`.

    One question to a store, however many there are.
    """
    if not is_url(folder):
        try:
            with os.scandir(local_path(folder)) as there:
                return {each.name: size(each.path) if each.is_file() else None for each in there}
        except FileNotFoundError:
            return {}
    url = os.fspath(folder).rstrip("/")
    try:
        found = ask(url, "listed", lambda fs, key: (key, fs.ls(key, detail=True)))
    except FileNotFoundError:
        _check_bucket(url)
        return {}
    root, listed = found
    if any(_same(item["name"], root) and item["type"] == "file" and item["size"]
           for item in listed):  # fmt: skip
        raise NotADirectoryError(errno.ENOTDIR, "a file, not a folder", url)
    # Some programs leave an empty object where they make a "folder".
    return {
        _last(item["name"]): item["size"] if item["type"] == "file" else None
        for item in listed
        if not _same(item["name"], root)
    }


def files_below(url: str) -> list[str]:
    """Paths of all files below a URL, relative to it, sorted.

    Raises:
        StorageError: it cannot be listed, or its bucket does not exist.
    """
    try:
        root, found = ask(url, "listed", lambda fs, key: (key, fs.find(key)))
    except FileNotFoundError:
        found = []
    if not found:
        _check_bucket(url)
        return []
    start = root.strip("/") + "/"
    names = (name.lstrip("/").removeprefix(start) for name in found)
    return sorted(name for name in names if name and not name.endswith("/"))


def fingerprint(url: str) -> str:
    """SHA-256 of names, sizes and versions of the file at a URL, or of all files below it."""
    try:
        found = ask(url, "listed", lambda fs, key: fs.find(key, detail=True))
        # A web server's list tells no versions: of a file at least, there is one.
        state = version_of(url) if url.startswith(("http://", "https://")) else None
    except FileNotFoundError:
        found, state = {}, None
    listed = json.dumps([url.rstrip("/"), found, state], sort_keys=True, default=str)
    return hashlib.sha256(listed.encode()).hexdigest()


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _same(name: str, root: str) -> bool:
    return name.strip("/") == root.strip("/")


def _check_bucket(url: str) -> None:
    """Tell a bucket without such files from no bucket at all."""
    scheme, _, path = url.partition("://")
    bucket = f"{scheme}://{path.split('/')[0]}"
    try:
        ask(bucket, "looked up", lambda fs, key: key.strip("/") and fs.info(key))
    except FileNotFoundError as error:
        # The memory of this process has folders, which come and go with their files.
        if scheme != "memory":
            raise StorageError(f"{bucket} does not exist; make it, or correct the URL") from error


# --- writing ---------------------------------------------------------------------------------


@contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """A new file to write and read back, put in place whole when the block ends without an error.

    Locally it is written beside its place under a temporary name, synced and renamed. For a URL it
    is an unnamed local file, uploaded in one piece, and its size compared.
    """
    if not is_url(path):
        place = Path(local_path(path))
        # Process numbers alone repeat where several machines share the folder.
        owner = f"{socket.gethostname()}.{os.getpid()}"
        temporary = place.with_name(f".{place.name}.{owner}.tmp")
        try:
            with no_room_says(str(place.parent), "make room, and run again"):
                with open(temporary, "w+b") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
        return
    with _scratch_file() as scratch:
        yield scratch
        scratch.flush()
        length = os.fstat(scratch.fileno()).st_size
        # It has no name, so that no process's death leaves it behind.
        name = f"/dev/fd/{scratch.fileno()}"

        def upload(fs: Any, key: str) -> None:
            scratch.seek(0)
            fs.put_file(name, key)

        ask(os.fspath(path), "written", upload)
        _check_size(os.fspath(path), length)


@contextmanager
def _scratch_file() -> Iterator[BinaryIO]:
    folder = tempfile.gettempdir()
    with (
        no_room_says(folder, "what is uploaded is made there: make room, or set TMPDIR"),
        tempfile.TemporaryFile(dir=folder) as file,
    ):
        yield file


def write_atomically(path: PathLike, data: bytes) -> None:
    """Write a whole file: complete, or not there."""
    if not is_url(path):
        with replacing(path) as file:
            file.write(data)
        return
    ask(os.fspath(path), "written", lambda fs, key: fs.pipe_file(key, data))
    _check_size(os.fspath(path), len(data))


def write_text(path: PathLike, text: str) -> None:
    """Write a whole text file in UTF-8; what that has not, as names that are no UTF-8, escaped."""
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def _check_size(url: str, expected: int) -> None:
    found = size(url)
    if found != expected:
        raise StorageError(f"{url} has {found} bytes after an upload of {expected}; run again")


def sweep(folder: PathLike) -> None:
    """Remove what `replacing` left in a folder when its process was killed; at a URL that is
    nothing.
    """
    if not is_url(folder):
        for leftover in Path(local_path(folder)).glob(".*.[0-9]*.tmp"):
            leftover.unlink(missing_ok=True)


def make_folder(folder: PathLike) -> None:
    """Make a folder and those above it; a store has none, and needs none."""
    if not is_url(folder):
        os.makedirs(local_path(folder), exist_ok=True)


def remove_file(path: PathLike) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        if is_url(path):
            ask(os.fspath(path), "removed", lambda fs, key: fs.rm_file(key))
        else:
            os.remove(local_path(path))


def remove_folder(folder: PathLike) -> None:
    """Remove a folder with all that is in it, if it is there.

    Raises:
        ValueError: a URL that cannot be written to.
    """
    if not is_url(folder):
        shutil.rmtree(local_path(folder), ignore_errors=True)
        return
    url = os.fspath(folder)
    check_writable(url)
    with suppress(FileNotFoundError):
        ask(url, "removed", lambda fs, key: fs.rm(key, recursive=True))


def check_writable(path: PathLike) -> None:
    """Raise ValueError for a URL below which files cannot be written and removed."""
    if not is_url(path):
        return
    url = os.fspath(path)
    open_store(url)
    if url.startswith(("http://", "https://")):
        raise ValueError(f"{url} cannot be written to; expected a folder or an object store's URL")
    # fsspec would take it for a pattern, which may mean other folders too.
    if set(url) & set("*?["):
        raise ValueError(f"{url} holds one of * ? [; choose a name without")
