"""The request that a new version has to answer before it is the default: every family answers its own."""

from pathlib import Path

import pytest
from loading import service

from genserve.families import FAMILIES

RUNS = {
    "diffusion": "diffusion-mnist", "energy": "energy-mnist", "labels": "labels-mnist",
    "text": "ngram-austen", "words": "words-english", "gan": "gan-mnist", "vae": "vae-mnist",
}  # fmt: skip


def test_every_family_that_is_served_has_a_run_here() -> None:
    assert set(RUNS) == {name for name, family in FAMILIES.items() if family.request}


@pytest.mark.parametrize("family", RUNS)
def test_a_family_answers_its_smoke_request(family: str, tmp_path: Path) -> None:
    answering = service(tmp_path, RUNS[family])
    assert answering.spec.family == family
    (reply,) = answering.answers([FAMILIES[family].smoke])
    assert reply.status == 200, reply.body
    answering.close()
