#!/usr/bin/env python3
"""Exit with 0 when every model on this machine's server has a worker that is ready; `/ping` is 200 before."""

import http.client
import json
import sys

MANAGEMENT = ("127.0.0.1", 8081)


def main() -> None:
    try:
        names = [model["modelName"] for model in get("/models?limit=1000")["models"]]
        waiting = [
            n for n in names if not any(w["status"] == "READY" for w in get(f"/models/{n}")[0]["workers"])
        ]
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        sys.exit(f"not ready: the server does not answer ({error})")
    if not names or waiting:
        sys.exit(f"not ready: {', '.join(waiting) or 'no model is registered'}")


def get(path: str) -> "dict | list":
    connection = http.client.HTTPConnection(*MANAGEMENT, timeout=5)
    try:
        connection.request("GET", path)
        return json.load(connection.getresponse())
    finally:
        connection.close()


if __name__ == "__main__":
    main()
