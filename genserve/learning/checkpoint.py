"""Keep a training run on disk: a directory held by one program, and checkpoints to resume from.

A file of the name STOP in the directory asks the program to end at its next checkpoint.
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genserve import files
from genserve.data.pictures import ImageSet
from genserve.learning.identity import as_stored, changes, described, flat, require_same
from genserve.places import located
from genserve.runs.directory import FORMAT, read_config, read_metrics
from genserve.runs.tensors import (
    as_safetensors,
    load_weights,
    read_state,
    read_weights,
    save_state,
    write_weights,
)

# What a run and the one whose weights it starts from have in common, if their models have it.
SAME = ("family", "energy", "shape", "classes", "network", "n_tokens", "net")
STOP = "stop"  # whoever wrote the file removes it, so that no program overlooks it


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a run directory for this program; the system frees it when the process ends, however it ends.

    The directory itself is locked, so nothing is written for it. It is made if missing, and removed again if
    nothing was put into it.

    Raises:
        ValueError: another program on this machine trains there.
        OSError: the directory cannot be made or opened.
    """
    try:
        directory.mkdir(parents=True)
        made = True
    except FileExistsError:
        made = False
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{directory} is in use by another program that trains: wait for it or give another --name"
            ) from None
        try:
            yield
        finally:
            if made:
                with suppress(OSError):  # it is not empty
                    directory.rmdir()
    finally:
        os.close(descriptor)


class Checkpoint:
    """The run directory while it grows: configuration, state to resume from, metrics.

    Args:
        config: of the program, with `output`, `name` and `tensorboard`; some programs have `start_from`.
        model: the configuration of the network.
        sets: the training images, or text, as "data", and "held_out" if something is measured on others.
        inputs: digests of other files that the run depends on, by the setting that names their path.
        first: whether this is the rank that writes.
    """

    def __init__(
        self,
        config: Any,
        model: Any,
        sets: Mapping[str, ImageSet | str],
        inputs: Mapping[str, str] | None = None,
        *,
        first: bool,
    ) -> None:
        self.directory, self.first = Path(config.output) / config.name, first
        self._settings, self._model = config, model
        self._start_from: str | None = getattr(config, "start_from", None)
        self._board: Any = None
        self._total: int | None = None
        parts = {"format": FORMAT, "model": asdict(model), "train": asdict(config)}
        parts |= {name: described(data) for name, data in sets.items()}
        self._config: dict[str, Any] = as_stored(parts | {"inputs": dict(inputs or {})})

    def resume(
        self, network: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer | None, total: int
    ) -> dict[str, Any]:
        """Load the last checkpoint into networks and optimiser, or the weights that a new run starts from.

        Nothing is written before everything fits together.

        Args:
            network, ema, optimizer: freshly built; None if nothing is learnt by descent.
            total: steps of the whole run.

        Returns:
            `step` and whatever was saved besides networks and optimiser; empty for a new run.

        Raises:
            ValueError: the directory holds another run, or weights without a state, or STOP; start_from is of
                another model; a file is torn.
            OSError: a file cannot be read or written.
        """
        if self._stops():
            raise ValueError(f"{self.directory / STOP} asks this run to stop: remove it to go on")
        self._total = self._config["steps"] = total
        state = self._last(total)
        path = self.directory / "state.pt"
        if state:
            load_weights(network, state["model"], path)
            load_weights(ema, state["ema"], path)
            if optimizer is not None:
                with files.parsing(path, "a checkpoint of this run"):
                    optimizer.load_state_dict(state["optimizer"])
        elif self._start_from is not None:
            start = located(self._start_from)
            require_same("start_from", start, self._model, SAME)
            weights = read_weights(start / "weights.safetensors")
            for each in (network, ema):
                load_weights(each, weights, start / "weights.safetensors")
        if self.first:
            self._begin(state)
        return {name: value for name, value in state.items() if name not in ("model", "ema", "optimizer")}

    def _last(self, total: int) -> dict[str, Any]:
        """Return the last checkpoint of this run, or nothing; raises as `resume`."""
        names = ("config.json", "weights.safetensors", "state.pt")
        config_file, weights_file, state_file = (self.directory / name for name in names)
        before = read_config(self.directory) if config_file.exists() or state_file.exists() else {}
        self._record_start(before)
        if not state_file.exists():
            if weights_file.exists():
                raise ValueError(
                    f"{self.directory} holds weights and no state.pt to go on from: give another --name "
                    f"(--start-from {self.directory} begins a new run with these weights) or remove it"
                )
            return {}
        with files.parsing(config_file, "the configuration of a training run"):
            usual = flat(as_stored(asdict(type(self._settings)())))
            changed = changes(before, self._config, usual)
        if changed:
            raise ValueError(
                f"{self.directory} holds another run ({'; '.join(changed)}): give another --name or remove it"
            )
        state = read_state(state_file)
        if missing := {"step", "model", "ema", "optimizer"} - state.keys():
            raise ValueError(f"{state_file} is no checkpoint: it has no {', '.join(sorted(missing))}")
        if state["step"] > total:
            raise ValueError(
                f"{self.directory} is {state['step']} steps long already, {total} are asked for: "
                "give more --epochs or another --name"
            )
        return state

    def _record_start(self, before: Mapping[str, Any]) -> None:
        """Record the digest of the weights to start from; a run that has begun no longer needs them."""
        if self._start_from is None:
            return
        weights_file = located(self._start_from) / "weights.safetensors"
        if weights_file.exists():
            self._config["inputs"]["start_from"] = files.digest(weights_file)
        elif "start_from" in before.get("inputs", {}):
            self._config["inputs"]["start_from"] = before["inputs"]["start_from"]

    def _begin(self, state: Mapping[str, Any]) -> None:
        """Bring the files back to the step of the state."""
        self.directory.mkdir(parents=True, exist_ok=True)
        records = read_metrics(self.directory, up_to=state.get("step", -1))
        for torn in self.directory.glob(".*.part"):  # what a kill in the middle of a write left
            torn.unlink()
        files.update(self.directory / "config.json", files.as_json(self._config))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        files.update(self.directory / "metrics.jsonl", lines.encode())
        weights_file = self.directory / "weights.safetensors"
        # a kill or a full disk may come after state.pt and before the weights; older states do not say which
        # weights they belong to
        if "kept" in state or (state and not weights_file.exists()):
            files.update(weights_file, as_safetensors(state.get("kept") or state["ema"]))
        if self._settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            with files.naming(self.directory / "tensorboard"):
                self._board = SummaryWriter(str(self.directory / "tensorboard"))

    def record(self, step: int, **values: float) -> None:
        """Append one line of metrics.

        Raises:
            OSError: the disk is full, and so on, with the name of the file.
        """
        if not self.first:
            return
        path = self.directory / "metrics.jsonl"
        with files.naming(path), path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            with files.naming(self.directory / "tensorboard"):
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)

    def save(
        self,
        step: int,
        network: nn.Module,
        ema: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        kept: dict[str, Tensor] | None = None,
        **more: Tensor,
    ) -> None:
        """Write state and weights after this many steps, and whatever else a resumed run needs.

        The state comes first: a run that has it can go on, and writes the weights that belong to it.

        Args:
            kept: the weights that the run leaves, if they are not those of the EMA.

        Raises:
            OSError: the disk is full, and so on, with the name of the file.
            SystemExit: STOP is in the directory, and steps are left.
        """
        if not self.first:
            return
        state = {
            "step": step,
            "model": network.state_dict(),
            "ema": ema.state_dict(),
            "optimizer": {} if optimizer is None else optimizer.state_dict(),
            "kept": kept,
            **more,
        }
        save_state(self.directory / "state.pt", state)
        write_weights(self.directory / "weights.safetensors", kept or ema.state_dict())
        if self._stops() and step != self._total:
            sys.exit(f"{self.directory}: stopped after {step} steps, as {STOP} asks")

    def _stops(self) -> bool:
        return self.first and (self.directory / STOP).exists()
