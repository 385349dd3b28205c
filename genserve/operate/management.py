"""The management API of a server on this machine."""

import http.client
import json
from typing import Any


def worker_states(port: int) -> dict[str, list[str]] | None:
    """Return the state of each model's workers, or none while the server does not answer."""
    try:
        models = [entry["modelName"] for entry in get(port + 1, "/models?limit=1000")["models"]]
        return {
            m: [w["status"] for version in get(port + 1, f"/models/{m}/all") for w in version["workers"]]
            for m in models
        }
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None


def get(port: int, path: str) -> Any:
    """Return what an address of the API answers, as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
