"""Export a run to what an archive carries: model.pt (TorchScript) and model.json (its contract).

python -m genserve.runs.export weights/diffusion-mnist out/
"""

import io
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from genserve.cli import plain_errors
from genserve.files import write_json
from genserve.runs.contract import Contract
from genserve.runs.defaults import contract_of
from genserve.runs.directory import load_model
from genserve.runs.loading import torchscript
from genserve.runs.tensors import atomic_for_torch


def export(directory: Path, out: Path) -> Contract:
    """Write model.pt and model.json of a run and return the contract.

    The TorchScript is the mathematical object itself, with its preconditioning: (x, sigma, y) -> E[x_0 | x]
    of a denoiser, (x, sigma, y) -> E of an energy, and in other families a method for each kind of query.
    Defaults and quality come from the run's serving.json.

    Raises:
        FileNotFoundError, OSError, ValueError: as `directory.load_model` and `contract_of`.
    """
    trained = load_model(directory)
    spec = contract_of(directory)
    out.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with torchscript():
        torch.jit.save(torch.jit.script(trained), buffer)
    _without_debug(buffer, out / "model.pt")
    write_json(out / "model.json", asdict(spec))
    return spec


def _without_debug(source: io.BytesIO, path: Path) -> None:
    """Copy a TorchScript file without its debug records, which hold paths of the machine that wrote it."""
    source.seek(0)
    reader = torch._C.PyTorchFileReader(source)
    with atomic_for_torch(path) as file:
        writer = torch._C.PyTorchFileWriter(file)
        for name in reader.get_all_records():
            if not name.endswith(".debug_pkl") and name not in (
                "version",
                "byteorder",
                ".data/version",
                ".data/serialization_id",
            ):
                record = reader.get_record(name)
                writer.write_record(name, record, len(record))
        writer.write_end_of_file()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m genserve.runs.export RUN OUTPUT")
    with plain_errors():
        export(Path(sys.argv[1]), Path(sys.argv[2]))
