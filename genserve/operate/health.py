"""Exit with 0 when every model on this machine's server has a worker that is ready; `/ping` is 200 before.

genserve health
"""

import http.client
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from genserve.operate.management import get


def run(argv: list[str]) -> None:
    """Look at a server; what is not ready ends the program in one line.

    Raises:
        SystemExit: a model has no worker that is ready, or the server does not answer.
    """
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--port", type=int, default=8080, help="of predictions (default: 8080); management is the next one"
    )
    management = parser.parse_args(argv).port + 1
    try:
        models = [model["modelName"] for model in get(management, "/models?limit=1000")["models"]]
        waiting = [
            name
            for name in models
            if not any(w["status"] == "READY" for w in get(management, f"/models/{name}")[0]["workers"])
        ]
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        sys.exit(f"not ready: the server does not answer ({error})")
    if not models or waiting:
        sys.exit(f"not ready: {', '.join(waiting) or 'no model is registered'}")
