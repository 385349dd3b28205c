"""Routes of administration change models as the command line does, and refuse what is no model or archive."""

import json

import httpx
import pytest
from archives import packed, versioned
from real_gateway import Gateway
from real_server import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(1200)]


def test_models_are_registered_scaled_rolled_and_deleted(gateway: Gateway, server: Server) -> None:
    plain = packed(server.store, "admin-mine")
    versioned(plain, server.store / "admin-mine-2.0.mar", "2.0", "admin-mine")
    with gateway.client() as client:
        path = "/admin/models/admin-mine"
        registered = client.post("/admin/models", json={"file": plain.name})
        assert (registered.status_code, registered.json()["ready"]) == (201, 1)
        assert client.post("/admin/models", json={"file": plain.name}).status_code == 409
        assert "admin-mine" in [one["name"] for one in client.get("/admin/models").json()["models"]]
        rolled = client.post(f"{path}/roll", json={"file": "admin-mine-2.0.mar", "keep": True})
        assert rolled.json() == {"name": "admin-mine", "version": "2.0", "before": "1.0", "kept": True}
        assert client.post(f"{path}/rollback").json()["version"] == "1.0"
        assert client.request("DELETE", path, json={"version": "2.0"}).json()["version"] == "2.0"
        assert client.post(f"{path}/retire").json()["ready"] == 0
        assert client.put(f"{path}/scale", json={"workers": 1}).json()["ready"] == 1
        assert client.delete(path).status_code == 200
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "", {"file": "../../etc/passwd"}, 400),
        ("POST", "", {"file": "/etc/passwd"}, 400),
        ("POST", "", {"file": "a\0b"}, 400),
        ("POST", "", {"file": ".."}, 400),
        ("POST", "", {"file": ""}, 400),
        ("POST", "", {"file": "nothing.mar"}, 404),
        ("POST", "", {"file": "README.md"}, 400),
        ("POST", "", {"file": "diffusion.mar", "workers": 65}, 400),
        ("POST", "", {"file": "diffusion.mar", "workers": "1"}, 400),
        ("POST", "", {"url": "http://example.org/x.mar"}, 400),
        ("PUT", "/diffusion/scale", {}, 400),
        ("PUT", "/nothing/scale", {"workers": 1}, 404),
        ("PUT", "/diffusion/scale", {"workers": 1, "version": "9.9"}, 404),
        ("PUT", "/%00/scale", {"workers": 1}, 404),
        ("PUT", "/a%2f..%2fb/scale", {"workers": 1}, 404),
        ("POST", "/energy/roll", {"file": "diffusion.mar"}, 400),
        ("POST", "/diffusion/roll", {"file": "diffusion.mar", "check_seed": -1}, 400),
        ("POST", "/diffusion/rollback", {}, 409),
        ("POST", "/nothing/retire", {}, 404),
        ("DELETE", "/nothing", {}, 404),
        ("DELETE", "/diffusion", {"version": "\ud800"}, 404),
        ("PATCH", "/diffusion", {}, 405),
    ],
)
def test_a_wrong_change_is_refused_and_changes_nothing(
    gateway: Gateway, method: str, path: str, body: dict[str, object], status: int
) -> None:
    with gateway.client() as client:
        before = client.get("/admin/models").json()["models"]
        answer = ask(client, method, f"/admin/models{path}", body)
        assert (answer.status_code, bool(answer.json()["error"])) == (status, True), answer.text
        names = [(one["name"], one["version"], one["target"]) for one in before]
        after = client.get("/admin/models").json()["models"]
        assert [(one["name"], one["version"], one["target"]) for one in after] == names


def ask(client: httpx.Client, method: str, path: str, body: dict[str, object]) -> httpx.Response:
    return client.request(method, path, content=json.dumps(body))
