"""Ray in this process: an own one, or a running cluster that is joined; and why neither can be."""

import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.command.messages import LOG
from pipelines.command.stopping import handlers_kept
from segswap.files import limits
from segswap.files.extras import MissingExtraError

_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TRIES = 5  # to join a cluster, about a second each
_ANSWER = 10.0  # seconds for a connection and for the first words
# What HTTP/2 begins with, and so gRPC, which Ray speaks: from us, and the type of frame in reply.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4
# The longest name of a socket below Ray's folder, and what systems take.
_SOCKET = "/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
_SOCKET_LIMIT = 104
_FEWEST = 150  # threads, with which Ray has not started yet, and below which it may crash
_token = secrets.token_hex(32)  # of this process's own clusters


@contextmanager
def ray_cluster(cpus: int, address: str | None = None, store: int | None = None) -> Iterator[None]:
    """Ray in this process: a running cluster, or one of this process's own.

    A running cluster is left as it was; an own one is shut down at the end.

    Args:
        cpus: how many an own cluster has.
        address: the running cluster's, as ray.init takes it; None for an own one.
        store: bytes of an own cluster's object store; None for as many as Ray sees fit.

    Raises:
        RuntimeError: Ray does not start, or no cluster answers.
        MissingExtraError: Ray is not installed.
    """
    import_ray()
    # As a newer Ray does: GPUs are not hidden from tasks that ask for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with _environment_kept():
        _escape_command_line()
        if address:
            _join(address)
        else:
            _start(cpus, store)
        try:
            yield
        finally:
            import_ray().shutdown()


def import_ray() -> Any:
    """Ray, which takes a second, and of which an inline run has no use.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray

        ray.init  # noqa: B018 - a folder of this name is a package, too
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(
            f"workers need Ray, which is not installed ({error}); run: pip install "
            "'segswap[generate]', or work in one process: --workers 0"
        ) from error
    return ray


def _escape_command_line() -> None:
    """Ray keeps this process's command line, and does not start where that is no UTF-8."""
    import ray._private.utils as own  # there is no setting for it

    before = getattr(own, "get_entrypoint_name", str)
    text = before()
    escaped = text.encode("utf-8", "backslashreplace").decode()
    if escaped != text:
        own.get_entrypoint_name = lambda: escaped


# --- an own one ----------------------------------------------------------------------------------


def _start(cpus: int, store: int | None) -> None:
    ray = import_ray()
    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False}
    if store:
        own["object_store_memory"] = store
    if lacking := _too_few(_FEWEST):
        raise RuntimeError(f"Ray cannot start: {lacking}")
    if folder := _folder():
        own["_temp_dir"] = folder
    # By itself Ray keeps a token in the home, which a user may not have, and which decides how
    # clusters are started later.
    if not any(name in os.environ for name in _AUTH):
        os.environ["RAY_AUTH_TOKEN"] = _token
    try:
        with handlers_kept():
            ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray raises many kinds, among them when it is not up in 30 s
        ray.shutdown()
        said = str(error).partition("\n")[0] or type(error).__name__
        raise RuntimeError(f"Ray did not start ({said}); {_advice()}") from error


def _folder() -> str | None:
    """A folder for Ray's sockets and logs, whose name is short; None where Ray's own choice is one.

    Raises:
        RuntimeError: there is none.
    """
    wanted = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    for place in (wanted, "/tmp", "/var/tmp", "/dev/shm"):
        for name in ("ray", f"ray-{os.getuid()}"):  # the first may be another user's
            folder = Path(place, name)
            if len(f"{folder}{_SOCKET}") <= _SOCKET_LIMIT and _can_write(folder):
                if place == wanted:
                    return None if name == "ray" else str(folder)
                LOG.info("%s is no folder for Ray's sockets; they are in %s", wanted, folder)
                return str(folder)
    raise RuntimeError(
        f"Ray has no folder for its sockets: {wanted} and /tmp are not there, cannot be written or "
        f"have names of over {_SOCKET_LIMIT - len(_SOCKET) - len('/ray')} characters; set "
        "RAY_TMPDIR to one, or work in one process: --workers 0"
    )


def _can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made."""
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        if made:
            folder.chmod(0o777)  # as Ray does: other users have theirs in it
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _advice() -> str:
    """What to do where Ray did not start: what is known of limits on processes comes first."""
    least = 300 + 60 * (os.cpu_count() or 1)  # threads of an idle Ray, with room to work
    return _too_few(least) or "try fewer --workers, or work in one process: --workers 0"


def _too_few(least: int) -> str:
    """What is wrong where there may not be so many processes and threads."""
    for what, limit, how in _limits():
        if limit < least:
            return (
                f"{what} is {limit}, of which Ray needs some {least}: {how}, or work in one "
                "process: --workers 0"
            )
    return ""


def _limits() -> Iterator[tuple[str, int, str]]:
    """Limits on how many processes and threads there may be, and how they are raised."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid():  # root has none
        yield "the limit of this user's processes and threads", soft, "raise it (ulimit -u)"
    group = Path("/sys/fs/cgroup/pids.max")
    if group.exists() and (found := group.read_text().strip()).isdigit():
        yield "the limit of this container's processes", int(found), "raise it (--pids-limit)"


# --- a running one -------------------------------------------------------------------------------


def _join(address: str) -> None:
    ray = import_ray()
    _use_token()
    with tempfile.TemporaryFile() as heard:
        try:
            _check_answers(address)
            # Ray says the same line each second, and the reason nowhere else.
            with handlers_kept(), _errors_into(heard), _fewer_tries():
                ray.init(
                    address=address, log_to_driver=False, logging_level=logging.ERROR,
                    # Workers of a running cluster do not have this process's environment.
                    runtime_env={"env_vars": limits.told()} if limits.told() else None,
                )  # fmt: skip
        except Exception as error:  # Ray raises many kinds
            ray.shutdown()
            heard.seek(0)
            raise RuntimeError(
                f"no Ray cluster can be joined at --address {address} "
                f"({_reason(error, heard.read())})"
            ) from error


def _reason(error: Exception, heard: bytes) -> str:
    """Why a cluster was not joined, and what to do."""
    if b"InvalidAuthToken" in heard or "token" in str(error).lower():
        return (
            "it wants another token than this process has: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN to the one that it was started with, or give this user its file "
            "~/.ray/auth_token"
        )
    said = str(error).partition("\n")[0] or type(error).__name__
    return f"{said}; start one with `ray start --head`, or leave out --address"


def _use_token() -> None:
    """Have Ray show the token that there is, which it does by itself for the address auto alone; a
    cluster that asks for none lets it pass.
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:  # a version that knows of no tokens
        return
    use = getattr(setup, "maybe_enable_token_auth_if_token_available", None)
    if use:
        before = setup.logger.level
        setup.logger.setLevel(logging.ERROR)  # that a token is used is a warning to it
        use(warn_if_disabled=False)
        setup.logger.setLevel(before)


def _check_answers(address: str) -> None:
    """Raise OSError where nothing that may be Ray answers at HOST:PORT; Ray would ask for minutes.

    Raises:
        OSError: nothing is there, or what is there says nothing.
        ValueError: something else is there.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (colon and port.isdigit()):
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER) as there:
        if address.startswith("ray://"):
            return
        there.sendall(_PREFACE)
        try:
            frame = there.recv(9)
        except TimeoutError as error:
            raise TimeoutError(f"a program is there that says nothing in {_ANSWER:g} s") from error
    if len(frame) < 9 or frame[3] != _SETTINGS:
        raise ValueError("another program is there, not Ray")


@contextmanager
def _errors_into(file: Any) -> Iterator[None]:
    """What this process writes to standard error, whoever does it, goes into a file."""
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def _fewer_tries() -> Iterator[None]:
    """Ray's own are 20, of which the last fail as the first."""
    from ray._private import ray_constants as constants

    before = constants.NUM_REDIS_GET_RETRIES
    constants.NUM_REDIS_GET_RETRIES = _TRIES
    try:
        yield
    finally:
        constants.NUM_REDIS_GET_RETRIES = before


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Put back how Ray authenticates: the next one may be another."""
    before = {name: os.environ.get(name) for name in _AUTH}
    _forget_token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _forget_token()


def _forget_token() -> None:
    """Have Ray look for its token anew, where it is a version that keeps one."""
    from ray import _raylet

    if loader := getattr(_raylet, "AuthenticationTokenLoader", None):
        loader.instance().reset_cache()
