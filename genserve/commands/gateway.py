"""Stand in front of a running server: a page, a proxy with tokens and limits, training jobs over HTTP.

    genserve gateway                                    http://127.0.0.1:8090, for this machine alone
    genserve gateway --tokens FILE --host 0.0.0.0       for others; lines `client TOKEN` and `admin TOKEN`
    genserve gateway start                              in the background; back when it answers
    genserve gateway stop                               end the one in the background

The tokens may also be in the environment, as GENSERVE_TOKEN and GENSERVE_ADMIN_TOKEN. On loopback none are
needed.
"""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import fields
from pathlib import Path

import uvicorn

from genserve.cli import plain_errors
from genserve.gateway import background
from genserve.gateway.listening import Patient
from genserve.gateway.options import PORT, Limits, Options, Tokens
from genserve.gateway.sharing import check_redis
from genserve.operate.api import LOOPBACK, local_server
from genserve.operate.process import home

ACTIONS = ("run", "start", "stop")


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("action", nargs="?", choices=ACTIONS, default="run", help="run here (the default), or start or stop")
    add("--host", default=LOOPBACK, help=f"to listen on (default: {LOOPBACK})")
    add("--port", type=int, default=PORT, help=f"to listen on (default: {PORT})")
    add("--server-port", type=int, default=8080, help="of the server's predictions (default: 8080)")
    add("--server-host", default=LOOPBACK, help=f"of the server (default: {LOOPBACK})")
    add("--home", type=Path, default=home(), help="of `genserve serve` (default: .serve)")
    add("--tokens", type=Path, help="file of lines `client TOKEN` and `admin TOKEN`")
    add("--redis", help="URL of a Redis that several gateways share")
    add("--outputs", type=Path, default=Options.outputs, help="folder of written pictures (default: outputs)")
    add("--runs", type=Path, default=Options.runs, help="folder of the runs that jobs train (default: runs)")
    add("--data", type=Path, default=Options.data, help="folder of the data sets of jobs (default: data)")
    add("--threads", type=int, default=Options.threads, help="of a training job (default: 1)")
    for limit in fields(Limits):
        add(
            f"--{limit.name}", type=int, default=limit.default,
            help=f"of a client, {'at a time' if limit.name == 'open' else 'a minute'}; 0 is no limit"
            f" (default: {limit.default})",
        )  # fmt: skip
    return parser.parse_args(argv)


def options_of(flags: Namespace) -> Options:
    """Return the options of these flags."""
    same = ("host", "port", "redis", "outputs", "runs", "data", "threads")
    return Options(
        find_server=lambda: local_server(flags.server_port, flags.home, flags.server_host),
        tokens=Tokens.read(flags.tokens),
        limits=Limits(**{limit.name: getattr(flags, limit.name) for limit in fields(Limits)}),
        **{name: getattr(flags, name) for name in same},
    )


def run(argv: list[str]) -> None:
    """Listen until a signal comes; a mistake ends the program in one line."""
    with plain_errors():
        flags = command_line(argv)
        options = options_of(flags)
        if flags.action == "start":
            others = list(argv)
            others.remove("start")
            return background.start(flags.home, flags.host, flags.port, others)
        if flags.action == "stop":
            return background.stop(flags.home)
        background.check_port(flags.home, flags.host, flags.port)
        from genserve.gateway.app import create_app  # slow to import, and only this needs it

        if options.redis is not None:
            check_redis(options.redis)
        app = create_app(options)
    uvicorn.run(
        app, host=options.host, port=options.port, http=Patient, ws="none", server_header=False,
        log_level="warning", timeout_graceful_shutdown=120,
    )  # fmt: skip
