"""Write texts with a run's language model, in this process."""

from collections.abc import Callable

from torch import Tensor

from genserve.language.queries import Prediction
from genserve.language.rules import Rules
from genserve.language.sampler import Text, drive, write
from genserve.language.tokens import Tokens
from genserve.sampling.noise import uniforms

PROMPTS = ("", "It is a truth universally acknowledged", "The evening ", '"My dear Mr. Darcy,"')
RULES = (Rules(temperature=0.7), Rules(temperature=1.0, top_p=0.9), Rules())
LENGTH = 120  # tokens of a sample


def written(
    step: Callable[[Tensor, Tensor], Prediction],
    start: Tensor,
    tokens: Tokens,
    prompt: str,
    *,
    rules: Rules,
    length: int,
    seed: int = 0,
    index: int = 0,
) -> Text:
    """Return text `index` of a seed.

    Args:
        step: of the model.
        start: (1, ...), its state before any token.

    Raises:
        ValueError: as `language.sampler.write`.
    """
    stream = uniforms(seed, index)
    return drive(write(tokens, start, prompt, length=length, rules=rules, uniforms=stream), step)


def samples(
    step: Callable[[Tensor, Tensor], Prediction],
    start: Tensor,
    tokens: Tokens,
    prompts: tuple[str, ...] = PROMPTS,
) -> str:
    """Return a page of texts, some prompts by some rules, each from its own seed and the same every time."""
    parts = []
    for rules in RULES:
        parts.append(f"==== temperature {rules.temperature:g}, top_p {rules.top_p:g} ====")
        for seed, prompt in enumerate(prompts):
            text = written(step, start, tokens, prompt, rules=rules, length=LENGTH, seed=seed)
            parts.append(f"[{prompt}]{text.text}")
    return "\n\n".join(parts) + "\n"
