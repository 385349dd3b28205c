"""What a model is served with: which keys a text may have, and which fields mean nothing to it."""

from dataclasses import replace

import pytest

from genserve.sampling.defaults import BadSetting, Defaults, fields_of, refuse
from genserve.sampling.schedules import Tuned
from genserve.sampling.solvers import SAMPLERS, SOLVERS, WALKS

DIFFUSION = Defaults(samplers=SAMPLERS, sampler="ddim", steps=9, sigma_min=0.01, sigma_max=80.0)
ENERGY = replace(DIFFUSION, samplers=tuple(SOLVERS))


def test_a_text_may_say_what_its_samplers_understand() -> None:
    assert list(DIFFUSION.keys) == ["schedule", "guidance", "eta", "sigma_min", "sigma_max"]
    assert list(ENERGY.keys) == ["schedule", "eta", "sigma_min", "sigma_max", "step_size", "noise"]
    assert list(replace(ENERGY, samplers=tuple(WALKS)).keys) == list(ENERGY.keys)


def test_fields_of_a_text_have_their_types() -> None:
    fields = fields_of("ddim:50:schedule=cosine:eta=1", DIFFUSION.keys)
    assert fields == {"sampler": "ddim", "steps": 50, "schedule": "cosine", "eta": 1.0}
    assert type(fields["eta"]) is float


@pytest.mark.parametrize("text", ["", "ddim", "ddim:", ":5", "ddim:-5", "ddim:5:", "ddim:5:eta", "a:5:rho=7"])
def test_what_is_no_setting_names_the_keys(text: str) -> None:
    with pytest.raises(ValueError, match="KEY one of schedule, guidance, eta, sigma_min, sigma_max; got"):
        fields_of(text, DIFFUSION.keys)
    with pytest.raises(ValueError, match="values are numbers"):
        fields_of("ddim:5:eta=half", DIFFUSION.keys)


def test_the_first_field_that_is_given_is_refused() -> None:
    refuse("means nothing", eta=None, noise=None)
    with pytest.raises(BadSetting) as error:
        refuse("means nothing", eta=None, noise=0.0)
    assert (error.value.field, error.value.allowed) == ("noise", "leave it out")


def test_tuned_levels_go_by_their_number() -> None:
    two, three = Tuned(sampler="ddim", sigmas=(9.0, 1.0)), Tuned(sampler="ddim", sigmas=(9.0, 3.0, 1.0))
    defaults = replace(DIFFUSION, tuned=(two, three))
    assert [defaults.tuned_for(n) for n in (2, 3, 4)] == [two, three, None]


def test_one_level_is_a_range_of_no_width() -> None:
    assert not DIFFUSION.one_level
    assert replace(DIFFUSION, sigma_min=1.0, sigma_max=1.0).one_level
