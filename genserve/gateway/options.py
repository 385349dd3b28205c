"""What a gateway is started with."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from genserve.operate.api import LOOPBACK, Server
from genserve.places import PROJECT

PORT = 8090
TOKEN_MIN = 16  # characters


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask of a gateway; 0 is no limit.

    Args:
        requests: a minute.
        work: items times evaluations of the network, a minute.
        open: requests at a time.
    """

    requests: int = 600
    work: int = 2_000_000
    open: int = 64

    def __post_init__(self) -> None:
        for limit in fields(self):
            if getattr(self, limit.name) < 0:
                raise ValueError(f"{limit.name} must be at least 0, got {getattr(self, limit.name)}")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Who is let in; None lets everybody in.

    Args:
        client: opens every route but those of administration.
        admin: opens every route.
    """

    client: str | None = None
    admin: str | None = None

    def __post_init__(self) -> None:
        for name, token in (("client", self.client), ("admin", self.admin)):
            if token is not None and len(token) < TOKEN_MIN:
                raise ValueError(f"the {name} token must have {TOKEN_MIN} characters or more")

    @property
    def set(self) -> bool:
        """Whether a token is needed at all."""
        return bool(self.client or self.admin)

    def role(self, given: str) -> str | None:
        """Return whose token this is, `client` or `admin`, in constant time; None if it is neither."""
        known = {"client": self.client, "admin": self.admin}
        matches = [
            role
            for role, token in known.items()
            if secrets.compare_digest(given.encode(), (token or "").encode()) and token
        ]
        return matches[-1] if matches else None

    @classmethod
    def read(cls, file: Path | None) -> "Tokens":
        """Return the tokens of a file of lines `client TOKEN` and `admin TOKEN`, else of the environment.

        The environment's are GENSERVE_TOKEN and GENSERVE_ADMIN_TOKEN.

        Raises:
            OSError: the file cannot be read.
            ValueError: a line is none of these, or a token is too short.
        """
        if file is None:
            return cls(
                client=os.environ.get("GENSERVE_TOKEN") or None,
                admin=os.environ.get("GENSERVE_ADMIN_TOKEN") or None,
            )
        lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
        if any(len(words) != 2 or words[0] not in ("client", "admin") for words in lines):
            raise ValueError(f"{file}: every line must be `client TOKEN` or `admin TOKEN`")
        return cls(**dict(lines))


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a gateway runs.

    Args:
        find_server: returns the TorchServe behind it, as much of it as can be reached now.
        host, port: where it listens.
        tokens: who is let in.
        limits: of one client.
        redis: URL of a Redis that several gateways share, for limits and jobs; else memory and files.
        outputs: folder of the pictures that the peers' routes write.
        runs: folder of the runs that jobs train.
        configs: folder of the configurations that a job may name.
        data: folder below which a job's data sets lie.
        threads: of a training job.

    Raises:
        ValueError: it would listen beyond this machine without tokens.
    """

    find_server: Callable[[], Server] = Server
    host: str = LOOPBACK
    port: int = PORT
    tokens: Tokens = field(default_factory=Tokens)
    limits: Limits = field(default_factory=Limits)
    redis: str | None = None
    outputs: Path = Path("outputs")
    runs: Path = Path("runs")
    configs: Path = PROJECT / "training" / "configs"
    data: Path = Path("data")
    threads: int = 1

    def __post_init__(self) -> None:
        if self.host not in (LOOPBACK, "localhost", "::1") and not (self.tokens.client and self.tokens.admin):
            raise ValueError(
                f"a gateway that listens on {self.host} needs two tokens: write `client TOKEN` and "
                "`admin TOKEN` into a file and name it with --tokens, or set GENSERVE_TOKEN and "
                "GENSERVE_ADMIN_TOKEN"
            )

    @property
    def server(self) -> Server:
        """The server, looked for again: a gateway may have been started before it. This may take a moment."""
        return self.find_server()
