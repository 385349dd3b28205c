"""The families of models, by name: everything that differs between them is in this table or behind it.

What a row names is a dotted path, so that reading the table imports nothing. A new family is a row, and the
files that the row names.
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Network:
    """One kind of network in a family.

    Args:
        build: path of the function that takes the configuration and returns the network, freshly initialised.
        one_level: it knows no noise levels; Langevin chains are part of its training.
        serving: what it is served with if its serving.json does not say otherwise; if it has no `steps`, they
            are those of its chains.
    """

    build: str
    one_level: bool = False
    serving: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A row of the table.

    Args:
        config: path of the class of `model` in config.json; its `build` returns the network.
        contract: path of the class of model.json.
        served: path of what returns the contract of a run.
        queries: by the name of a method of the exported network, the path of the class of its queries.
        precision: what the network is served in where the operator has no wish; "" for what the device is
            fast at.
        networks: by the `energy` of ModelConfig, "" for the only one, or by the `network` of TextModel; {} if
            the configuration builds its own.
        compiled: OpenVINO can evaluate the network (genserve.compiling).
        slopes: a model answers with energies and their gradients (Slope), else with x_0.
        guided: guidance is possible, if the model has classes.
        once: the network draws an image from noise in one evaluation, (noise (B, z_dim), y (B,)) -> x; this
            is the change of the noise that it takes, one of `genserve.sampling.latent.CHANGES`.
        request: path of what a client may ask; "" if the family is not served.
        smoke: fields of a small request that every model of the family can answer.
        handler: file of the handler that an archive carries, and the class in it.
    """

    config: str
    contract: str = "genserve.runs.contract.Spec"
    served: str = "genserve.runs.defaults.spec_of"
    queries: dict[str, str] = field(default_factory=lambda: {"forward": "genserve.sampling.samplers.Query"})
    precision: str = ""
    networks: dict[str, Network] = field(default_factory=dict)
    compiled: bool = False
    slopes: bool = False
    guided: bool = False
    once: str = ""
    request: str = ""
    smoke: dict[str, Any] = field(default_factory=dict)
    handler: tuple[str, str] = ("", "")


# A gray PNG of one pixel, in base64.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNoAAAAggCB2kUIOwAAAABJRU5ErkJggg=="

FAMILIES = {
    "diffusion": Family(
        config="genserve.models.config.ModelConfig",
        networks={
            "": Network(
                build="genserve.models.denoiser.denoiser_of", serving={"sampler": "dpmpp_2m", "steps": 18}
            )
        },
        compiled=True,
        guided=True,
        request="genserve.serving.requests.diffusion.DiffusionRequest",
        smoke={"steps": 4},
        handler=("handlers/diffusion_handler.py", "DiffusionHandler"),
    ),
    "energy": Family(
        config="genserve.models.config.ModelConfig",
        networks={
            "residual": Network(
                build="genserve.models.energy.residual_energy_of",
                serving={"sampler": "ddim", "eta": 1.0, "steps": 25},
            ),
            "plain": Network(
                build="genserve.models.contrastive.conv_energy_of",
                one_level=True,
                serving={"sampler": "langevin"},
            ),
        },
        compiled=True,
        slopes=True,
        request="genserve.serving.requests.energy.EnergyRequest",
        smoke={"steps": 4},
        handler=("handlers/energy_handler.py", "EnergyHandler"),
    ),
    "classifier": Family(config="genserve.models.classifier.ClassifierConfig"),
    "labels": Family(
        config="genserve.models.labels.LabelsConfig",
        contract="genserve.runs.contracts.labels.LabelsContract",
        served="genserve.runs.defaults.plain_contract_of",
        queries={
            "forward": "genserve.sampling.labelling.Pictures",
            "gradient": "genserve.sampling.labelling.Chosen",
        },
        precision="fp32",
        request="genserve.serving.requests.labels.LabelsRequest",
        smoke={"images": PIXEL},
        handler=("handlers/labels_handler.py", "LabelsHandler"),
    ),
    "text": Family(
        config="genserve.models.text.TextModel",
        contract="genserve.runs.contracts.text.TextSpec",
        served="genserve.runs.defaults.text_contract_of",
        queries={"step": "genserve.language.queries.Step"},
        precision="fp32",
        networks={
            "recurrent": Network(build="genserve.models.text.recurrent_of"),
            "ngram": Network(build="genserve.models.ngram.ngram_of"),
        },
        request="genserve.serving.requests.text.TextRequest",
        smoke={"length": 4},
        handler=("handlers/text_handler.py", "TextHandler"),
    ),
    "words": Family(
        config="genserve.models.words.WordsConfig",
        contract="genserve.runs.contracts.words.WordsSpec",
        served="genserve.runs.defaults.words_contract_of",
        queries={
            "forward": "genserve.runs.contracts.words.Comparison",
            "rows": "genserve.runs.contracts.words.Lookup",
        },
        precision="fp32",
        request="genserve.serving.requests.words.WordsRequest",
        smoke={"task": "describe"},  # a word that every vocabulary has is not known
        handler=("handlers/words_handler.py", "WordsHandler"),
    ),
    "gan": Family(
        config="genserve.models.gan.GanConfig",
        contract="genserve.runs.contracts.latents.GanSpec",
        served="genserve.runs.defaults.plain_contract_of",
        queries={"forward": "genserve.runs.contracts.latents.Latent"},
        precision="fp32",
        once="truncation",
        request="genserve.serving.requests.latents.GanRequest",
        handler=("handlers/gan_handler.py", "GanHandler"),
    ),
    "vae": Family(
        config="genserve.models.vae.VaeConfig",
        contract="genserve.runs.contracts.latents.VaeSpec",
        served="genserve.runs.defaults.plain_contract_of",
        queries={
            "forward": "genserve.runs.contracts.latents.Latent",
            "encode": "genserve.runs.contracts.latents.Encoded",
            "bound": "genserve.runs.contracts.latents.Bounded",
        },
        precision="fp32",
        once="temperature",
        request="genserve.serving.requests.latents.VaeRequest",
        handler=("handlers/vae_handler.py", "VaeHandler"),
    ),
}
SERVED = tuple(name for name, family in FAMILIES.items() if family.request)


def load(path: str) -> Any:
    """Return what a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
