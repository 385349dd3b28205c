"""The programs that train, by name, and the settings of each."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

from genserve.places import PROJECT

PROGRAMS = {  # name -> file in training/, and its line in the list
    "diffusion": ("train_diffusion.py", "a denoiser of real images"),
    "energy": ("train_energy.py", "an energy, by score matching or contrastive divergence"),
    "classifier": ("train_classifier.py", "a classifier, in whose features images are compared"),
    "words": ("train_words.py", "vectors of words, from counts of a text"),
    "gan": ("train_gan.py", "a generator that draws in one evaluation, against a discriminator"),
    "vae": ("train_vae.py", "a variational autoencoder with a flow prior"),
    "text": ("train_text.py", "a recurrent network that writes text"),
    "ngram": ("train_ngram.py", "an n-gram model of text, by counting"),
    "distill": ("distill_diffusion.py", "a consistency model of a trained diffusion model"),
}


def path_of(name: str) -> Path:
    """Return the file of a program."""
    return PROJECT / "training" / PROGRAMS[name][0]


@cache
def settings_of(name: str) -> Any:
    """Return the dataclass of a program's settings; the program is imported, not run."""
    path = path_of(name)
    spec = importlib.util.spec_from_file_location(f"genserve_training_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TrainConfig
