"""Train a recurrent network on text, token by token: a corpus in, a run directory out.

    python training/train_text.py --config training/configs/text-austen.yaml
    python training/train_text.py --data.name files --data.root DIR --name mine    # text files of your own
    python training/train_text.py --start-from weights/text-austen --data.name files --data.root DIR

The tokens are byte pairs, learnt from the training text first, or those of the run to start from. After each
epoch the averaged weights are measured on the validation text, and the best are kept. Run it again after a
kill and it goes on where it was; docs/training.md says what may change then.
"""

import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from genserve.cli import configure
from genserve.data.text import TextConfig, load_text
from genserve.drawing.texts import samples
from genserve.files import write_atomic
from genserve.language.pairs import BYTES, BytePairs, learn
from genserve.language.tokens import FILE, Tokens, read_tokens, write_tokens
from genserve.learning.checkpoint import Checkpoint, held
from genserve.learning.config import check
from genserve.learning.optim import (
    averaged,
    generator,
    learning_rate,
    precision_of,
    seed_dropout,
    set_learning_rate,
    update_ema,
)
from genserve.learning.ranks import join_ranks
from genserve.models.text import RecurrentText, TextModel, nll
from genserve.places import located

LINE_EVERY = 50  # steps between lines of metrics


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The network (genserve/models/text.py).

    Args:
        width: of embeddings and states.
        layers: recurrent layers.
    """

    width: int = 512
    layers: int = 2


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; saved in config.json beside the weights.

    Args:
        name: the run is written to OUTPUT/NAME.
        output: where run directories are.
        start_from: run directory of a model like this one: begin a new run with its tokens and weights.
        data: the text.
        net: the network.
        n_tokens: size of the vocabulary, the 256 bytes included.
        epochs: passes over the text.
        max_batches_per_epoch: cut each pass short.
        batch_size: streams of text read side by side.
        window: tokens of each stream per step; gradients end where it begins, states go on.
        lr: peak learning rate of AdamW.
        dropout: share of the activations that a step hides.
        warmup: steps of linear rise; a cosine to 0 follows.
        betas, weight_decay: of AdamW.
        grad_clip: largest norm of the gradient; a longer one is shortened to it.
        ema_decay: per step, of the averaged weights, which are kept.
        precision: auto (bf16 where the hardware has it), bf16 or fp32.
        seed: of everything random.
        checkpoint_every: steps between checkpoints; there is one after each epoch besides.
        tensorboard: also write TensorBoard files.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 is torch's own choice.
    """

    name: str = "text"
    output: str = "runs"
    start_from: str | None = None
    data: TextConfig = field(default_factory=TextConfig)
    net: NetConfig = field(default_factory=NetConfig)
    n_tokens: int = 2304
    epochs: int = 8
    max_batches_per_epoch: int | None = None
    batch_size: int = 32
    window: int = 64
    lr: float = 3e-3
    dropout: float = 0.25
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    ema_decay: float = 0.99
    precision: str = "auto"
    seed: int = 0
    checkpoint_every: int = 200
    tensorboard: bool = False
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check(self)
        for name in ("window", "grad_clip", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.n_tokens < len(BYTES):
            raise ValueError(f"n_tokens must be at least {len(BYTES)}, got {self.n_tokens}")


class Streams:
    """The tokens of each step: a text in streams that are read side by side, from a new place per epoch.

    Raises:
        ValueError: the text is too short.
    """

    def __init__(self, config: TrainConfig, tokens: Tensor, device: torch.device) -> None:
        self.config, self.tokens, self.device = config, tokens, device
        length = (len(tokens) - 1) // config.batch_size
        full = length // config.window
        self.per_epoch = min(full, config.max_batches_per_epoch or full)
        if self.per_epoch < 1:
            raise ValueError(
                f"batch_size {config.batch_size} x window {config.window} is more than the {len(tokens)} "
                "tokens of the text"
            )
        self.length = full * config.window
        self.total = config.epochs * self.per_epoch  # steps

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a step, (batch_size, window) each; targets are one token further."""
        epoch, k = divmod(step, self.per_epoch)
        spare = len(self.tokens) - self.config.batch_size * self.length  # at least 1
        rng = generator(self.config.seed, epoch, torch.device("cpu"))
        offset = int(torch.randint(spare, (1,), generator=rng))
        starts = offset + torch.arange(self.config.batch_size) * self.length + k * self.config.window
        at = starts[:, None] + torch.arange(self.config.window + 1)
        both = self.tokens[at].to(self.device)
        return both[:, :-1], both[:, 1:]


class TextRecorder:
    """Measures the averaged weights after each epoch and keeps the best; writes metrics and checkpoints.

    Args:
        valid: the validation text.
        tokens: encodes it.
    """

    def __init__(
        self, config: TrainConfig, checkpoint: Checkpoint, streams: Streams, valid: str, tokens: Tokens
    ) -> None:
        self.config, self.checkpoint, self.streams = config, checkpoint, streams
        self.characters, self.valid = len(valid), torch.tensor(tokens.encode(valid)).to(streams.device)
        self.tokens = tokens
        self.autocast = precision_of(config.precision, streams.device)
        self.kept: dict[str, Tensor] | None = None  # the weights that were best
        self.best = torch.tensor(math.inf)  # their bits per character
        self.nats, self.steps, self.clock = 0.0, 0, time.perf_counter()  # since the last line of metrics

    def resume(
        self, network: RecurrentText, ema: RecurrentText, optimizer: torch.optim.Optimizer
    ) -> tuple[int, Tensor]:
        """Load the last checkpoint, if there is one; return the steps done and the network's state."""
        last = self.checkpoint.resume(network, ema, optimizer, self.streams.total)
        self.kept, self.best = last.get("kept"), last.get("best", self.best)
        start, h = last.get("step", 0), last.get("hidden", network.start(self.config.batch_size))
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        self.bar = tqdm(total=self.streams.total, initial=start, unit="step", dynamic_ncols=True)
        self.bar.write(
            f"{self.checkpoint.directory}: {len(self.streams.tokens)} tokens, {parameters:.2f} M parameters, "
            f"{self.streams.total} steps"
        )
        return start, h.to(self.streams.device)

    def record(
        self,
        step: int,
        loss: float,
        network: RecurrentText,
        ema: RecurrentText,
        optimizer: torch.optim.Optimizer,
        h: Tensor,
    ) -> None:
        """Count a step as done; write the line of metrics and the checkpoint that are due.

        Args:
            step: its number, from 0.
            loss: nats per token.
            h: the network's state after it.

        Raises:
            OSError: a file cannot be written.
        """
        done, config = step + 1, self.config
        self.nats, self.steps = self.nats + loss, self.steps + 1
        self.bar.update()
        ends_epoch = done % self.streams.per_epoch == 0
        values: dict[str, float] = {}
        if done % LINE_EVERY == 0 or ends_epoch:
            speed = self.steps * config.batch_size * config.window / (time.perf_counter() - self.clock)
            values = {"loss": round(self.nats / self.steps, 5), "tokens_per_s": round(speed)}
        if ends_epoch:
            with self.autocast():
                nats = nll(ema, self.valid, self.tokens.first)
            values["valid_bits_per_character"] = round(nats / math.log(2) / self.characters, 5)
            if values["valid_bits_per_character"] < self.best:
                self.best.fill_(values["valid_bits_per_character"])
                self.kept = {name: value.clone() for name, value in ema.state_dict().items()}
        if values:
            self.checkpoint.record(done, **values)
            shown = {name.replace("_bits_per_character", ""): value for name, value in values.items()}
            self.bar.set_postfix({"best": self.best.item(), **shown})
            self.nats, self.steps, self.clock = 0.0, 0, time.perf_counter()
        if ends_epoch or done % config.checkpoint_every == 0:
            more = {"hidden": h, "best": self.best}
            self.checkpoint.save(done, network, ema, optimizer, self.kept, **more)
        if ends_epoch:
            page = samples(ema.step, ema.start(1), self.tokens)
            write_atomic(self.checkpoint.directory / "samples.txt", page.encode())


def tokens_of(config: TrainConfig, text: str) -> Tokens:
    """Return the tokens of the run: those that it began with, those of the run to start from, or learnt ones.

    Raises:
        OSError, ValueError: a file of tokens cannot be read.
    """
    places = [Path(config.output) / config.name]
    if config.start_from is not None:
        places.append(located(config.start_from))
    for place in places:
        if (place / FILE).exists():
            return read_tokens(place)
    return BytePairs(learn(text, config.n_tokens))


def main(config: TrainConfig) -> None:
    """Train, from the start or from the last checkpoint."""
    if config.threads:
        torch.set_num_threads(config.threads)
    device = join_ranks(config.device).device
    with held(Path(config.output) / config.name):
        fit(config, device)


def fit(config: TrainConfig, device: torch.device) -> None:
    """Train; raises FloatingPointError if the run diverges."""
    text, valid = (load_text(config.data, split) for split in ("train", "valid"))
    tokens = tokens_of(config, text)
    streams = Streams(config, torch.tensor(tokens.encode(text)), device)
    model = TextModel(family="text", network="recurrent", n_tokens=len(tokens), net=asdict(config.net))
    torch.manual_seed(config.seed)  # of the initial weights
    network = RecurrentText(model.n_tokens, **model.net, dropout=config.dropout).to(device)
    ema = averaged(network)
    optimizer = torch.optim.AdamW(network.parameters(), betas=config.betas, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(config, model, {"data": text, "held_out": valid}, first=True)
    recorder = TextRecorder(config, checkpoint, streams, valid, tokens)
    start, h = recorder.resume(network, ema, optimizer)
    write_tokens(checkpoint.directory, tokens)

    for step in range(start, streams.total):
        set_learning_rate(optimizer, learning_rate(step, streams.total, config.warmup, config.lr))
        x, y = streams(step)
        if step % streams.per_epoch == 0:
            h = network.start(config.batch_size)
        seed_dropout(config.seed, step, 0)
        with recorder.autocast():
            logits, h = network(x, h)
            loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grad_norm = clip_grad_norm_(network.parameters(), config.grad_clip).item()
        if not math.isfinite(loss.item() + grad_norm):
            what = f"loss {loss.item()} and gradient norm {grad_norm}"
            raise FloatingPointError(f"{what} at step {step}: try --lr below {config.lr}")
        optimizer.step()
        update_ema(ema, network, config.ema_decay, step)
        h = h.detach().float()
        recorder.record(step, loss.item(), network, ema, optimizer, h)
    recorder.bar.close()


if __name__ == "__main__":
    configure(main, TrainConfig, __doc__.split("\n\n")[0], sys.argv[1:])
