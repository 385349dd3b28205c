"""The gateway describes itself: every field of every family, without a server and without internet."""

import re

import pytest
from real_server import ROOT, Server
from starlette.testclient import TestClient

from genserve.families import FAMILIES, SERVED, load
from genserve.gateway.app import create_app
from genserve.gateway.options import Options
from genserve.gateway.schema import FORM, JSON, example, fields_of, one_of_each
from genserve.gateway.schema_page import page
from genserve.operate.api import Server as Addresses
from genserve.serving.fields import Fields, allowed, files, parse


def browser(server: Addresses) -> TestClient:
    return TestClient(create_app(Options(find_server=lambda: server)), "http://127.0.0.1:8090")


@pytest.fixture(scope="module")
def away() -> TestClient:
    return browser(Addresses("http://127.0.0.1:9", "http://127.0.0.1:9"))


def kind_of(family: str) -> type[Fields]:
    kind: type[Fields] = load(FAMILIES[family].request)
    return kind


@pytest.mark.parametrize("family", SERVED)
def test_every_field_has_its_meaning_limits_default_and_an_example_that_is_taken(family: str) -> None:
    kind, described = kind_of(family), fields_of(family, JSON)["properties"]
    assert described.keys() == kind.model_fields.keys()
    for name, field in kind.model_fields.items():
        values = described[name]
        assert values["description"] == f"{field.description} (allowed: {allowed(kind, name)})"
        assert values.get("default") == field.default
        assert values["example"] == example(kind, name) is not None
        parse(kind, {name: values["example"]}, False)
        limits = re.fullmatch(r"(-?\d+) to (-?\d+)", allowed(kind, name))
        if limits and values.get("type") == "integer":
            assert (values["minimum"], values["maximum"]) == (int(limits[1]), int(limits[2])), name


@pytest.mark.parametrize("family", SERVED)
def test_pictures_are_files_in_multipart_and_base64_in_json(family: str) -> None:
    kind = kind_of(family)
    for name in files(kind):
        assert fields_of(family, FORM)["properties"][name]["format"] == "binary"
        assert '"byte"' in str(fields_of(family, JSON)["properties"][name]).replace("'", '"')


def test_without_a_server_each_family_has_an_address(away: TestClient) -> None:
    document = away.get("/openapi.json").json()
    assert {f"/predictions/{name}" for name in one_of_each()} <= document["paths"].keys()
    assert set(one_of_each().values()) == set(SERVED)
    explained = {path for path in document["paths"] if path.startswith("/explanations/")}
    assert explained == {"/explanations/classifier", "/explanations/energy"}
    references = set(re.findall(r"#/components/schemas/([\w-]+)", str(document)))
    assert references <= document["components"]["schemas"].keys()
    assert "422" not in str(document["paths"])


def test_the_page_for_people_takes_nothing_from_elsewhere(away: TestClient) -> None:
    text = away.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(assets) == 3
    assert "://" not in text
    for asset in assets:
        assert away.get(asset).status_code == 200


def test_the_page_about_the_gateway_is_the_one_made_from_it() -> None:
    assert (ROOT / "docs" / "gateway-api.md").read_text() == page(), "run: genserve api-docs"


@pytest.mark.server
def test_a_server_s_models_have_addresses_with_the_fields_of_their_families(server: Server) -> None:
    addresses = Addresses(f"http://127.0.0.1:{server.port}", server.management)
    with browser(addresses) as client:
        document = client.get("/openapi.json").json()
    schemas = {
        path: operations["post"]["requestBody"]["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
        for path, operations in document["paths"].items()
        if path.startswith("/predictions/")
    }
    assert schemas["/predictions/consistency"] == schemas["/predictions/diffusion"] == "diffusion"
    assert schemas["/predictions/energy"] == "energy"
    assert "/predictions/words" not in schemas
