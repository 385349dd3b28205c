"""Delete versions of models from a running server once nothing of them is open."""

from genserve.operate.api import ManagementError, Server
from genserve.operate.offered import set_aside
from genserve.operate.registration import held
from genserve.operate.scaling import shrink
from genserve.operate.versions import Say, Version, listed, quiet, version_of, versions
from genserve.operate.waiting import WAIT_S, wait_empty


def delete(
    server: Server,
    name: str,
    version: str | None = None,
    *,
    now: bool = False,
    wait_s: float = WAIT_S,
    say: Say = quiet,
) -> Version:
    """Unregister a version once nothing of it is open; return what it was.

    Meanwhile its workers refuse new requests with 503, if they can be asked to.

    Args:
        version: needed if the model has several.
        now: do not wait; what is open is answered 500, and what waits in the queue gets no answer.
        wait_s: seconds that requests may take to end.

    Raises:
        ManagementError: no such version, it is the default and there are others, or it does not become
            empty.
    """
    with held(server, name):
        existing = versions(server, name)
        if version is None and len(existing) > 1:
            raise ManagementError(
                f"{name} has the versions {listed(existing)}: say which one by --version", 409
            )
        one = version_of(server, name, version)
        if one.default and len(existing) > 1:
            raise ManagementError(
                f"{one.version} is the default of {name}, which has {listed(existing)}: "
                f"make another one the default first (genserve models rollback {name} --version ...)", 409,
            )  # fmt: skip
        if not now and one.ready and one.in_reach:
            shrink(server, one, one.workers, wait_s=wait_s, now=False, say=say)
        elif not now:
            wait_empty(server, one, wait_s, say)
        remove(server, one, say)
        return one


def remove(server: Server, version: Version, say: Say) -> None:
    """Unregister a version and put its archive aside."""
    server.call("DELETE", version.name, version.version)
    set_aside(server, version, say)
