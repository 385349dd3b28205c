"""docs/api.md names every field with its allowed values, and those are what is taken."""

import pytest
from real_server import ROOT

from genserve.commands.api_docs import page
from genserve.sampling.schedules import SCHEDULES
from genserve.sampling.solvers import SAMPLERS, WALKS
from genserve.serving.fields import BadRequest, allowed, choices, parse
from genserve.serving.requests.diffusion import DiffusionRequest
from genserve.serving.requests.energy import EnergyRequest
from genserve.serving.requests.pictures import PictureRequest


@pytest.mark.parametrize(
    ("kind", "family"), [(DiffusionRequest, "A diffusion model"), (EnergyRequest, "An energy")]
)
def test_every_allowed_value_stands_under_its_family(kind: type[PictureRequest], family: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    rows: dict[str, str] = {}
    for title in ("Both take:", f"{family} also takes:"):
        for line in page.partition(title)[2].strip().split("\n\n")[0].splitlines()[2:]:
            name, _, values, _ = (cell.strip() for cell in line.strip("|").split("|"))
            assert name not in rows
            rows[name] = values
    assert rows.keys() == {f"`{name}`" for name in kind.model_fields}
    for name in kind.model_fields:
        assert choices(kind, name) in ([], rows[f"`{name}`"].split(", ")), name
        assert rows[f"`{name}`"] == allowed(kind, name)


def test_requests_list_every_solver_and_schedule_there_is() -> None:
    for kind, samplers in ((DiffusionRequest, SAMPLERS), (EnergyRequest, {*SAMPLERS, *WALKS})):
        assert set(choices(kind, "sampler")) == set(samplers)
        assert set(choices(kind, "schedule")) == set(SCHEDULES)


@pytest.mark.parametrize("kind", [DiffusionRequest, EnergyRequest])
def test_what_is_said_to_be_allowed_is_allowed_and_nothing_more(kind: type[PictureRequest]) -> None:
    for name in kind.model_fields:
        for value in choices(kind, name):
            assert str(getattr(parse(kind, {name: value}, True), name)).lower() == value
        first, _, last = allowed(kind, name).partition(" to ")
        if first.isdecimal() and last.isdecimal():
            for end, beyond in ((first, int(first) - 1), (last, int(last) + 1)):
                assert getattr(parse(kind, {name: end}, True), name) == int(end)
                with pytest.raises(BadRequest, match="out of range"):
                    parse(kind, {name: beyond}, False)


def test_the_page_about_the_api_is_the_one_made_from_it() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == page(), "run: genserve api-docs"
