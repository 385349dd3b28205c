"""What OpenVINO cannot run, or answers wrongly, TorchScript runs: with one line in the log."""

import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from real_server import ROOT
from small_networks import question
from torch import Tensor

from genserve.files import read_json
from genserve.precision import PRECISIONS, precision_for
from genserve.runs import compiled as module
from genserve.runs import directory
from genserve.runs.comparison import PLAIN, QUANTIZED, SAMPLE, Comparison, write_record
from genserve.runs.compiled import Compiled
from genserve.runs.contract import read_spec
from genserve.runs.loading import load_model, load_served

CPU = torch.device("cpu")
OWN = precision_for(CPU)  # what TorchScript runs in, if nothing else is wished for
QUERY = question(5, shape=(1, 28, 28), n_classes=10)


@pytest.fixture
def files(compiled: Callable[[str], Path], tmp_path: Path) -> Path:
    """The files of an archive, to be spoilt."""
    return shutil.copytree(compiled("diffusion-mnist"), tmp_path / "files")


def none(files: Path) -> None:
    for path in files.glob("compiled*"):
        path.unlink()


def torn(files: Path) -> None:
    for path in files.glob("*.xml"):
        path.write_bytes(path.read_bytes()[:1000])


def without_weights(files: Path) -> None:
    for path in files.glob("*.bin"):
        path.write_bytes(path.read_bytes()[:1000])


def torn_sample(files: Path) -> None:
    (files / SAMPLE).write_bytes((files / SAMPLE).read_bytes()[:1000])


def without_sample(files: Path) -> None:
    (files / SAMPLE).unlink()


def answers_of(change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    """Return what makes a sample say something else."""

    def spoilt(files: Path) -> None:
        sample = Comparison.read(files / SAMPLE)
        answers, rounded = (tuple(map(change, parts)) for parts in (sample.answers, sample.rounded))
        Comparison(sample.query, answers, rounded).write(files / SAMPLE)
        recorded(files)

    return spoilt


def recorded(files: Path, *stems: str) -> None:
    """Write the digests of files as they are now, as if they had been built so."""
    for stem in stems or (PLAIN, QUANTIZED):
        sizes = read_json(files / f"{stem}.json")["sizes"]
        write_record(files, stem, read_spec(files / "model.json").weights, sizes)


def one_wrong(answer: Tensor) -> Tensor:
    """Return answers of which one image is negative."""
    sign = torch.ones(len(answer), 1, 1, 1)
    sign[3] = -1
    return answer * sign


def another_record(files: Path) -> None:
    (files / "compiled.json").write_text('{"weights": 3}')


FAULTS = {
    "the archive has no compiled.xml": none,
    "compiled.xml is not the file that was built": torn,
    "compiled.bin is not the file that was built": without_weights,
    "the archive has no compiled.safetensors": without_sample,
    "compiled.safetensors is not the file that was built": torn_sample,
    "compiled.json is not the record of a compiled network": another_record,
    "its answers in": answers_of(one_wrong),
    "are off by nan": answers_of(lambda answer: answer * float("nan")),
}


def refused(files: Path, precision: str, caplog: pytest.LogCaptureFixture, rest: str) -> str:
    """Load files that OpenVINO cannot run, show that TorchScript does, and return the line of the log."""
    with caplog.at_level(logging.INFO, logger=module.__name__):
        served = load_served(files, CPU, "openvino", precision, budget=2)
    assert (served.backend, served.precision) == ("torchscript", rest)
    _, expected = load_model(files, CPU, PRECISIONS[rest])
    with torch.no_grad():
        assert torch.equal(served.model(*QUERY), expected(*QUERY))
    (record,) = [record for record in caplog.records if record.name == module.__name__]
    assert record.levelno == logging.WARNING
    line = record.getMessage()
    assert line.startswith("OpenVINO cannot be used, TorchScript is: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("text", FAULTS)
def test_files_that_are_not_as_they_were_written_are_not_used(
    text: str, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FAULTS[text](files)
    assert text.lower() in refused(files, "fp32", caplog, "fp32").lower()


def test_a_whole_set_of_another_model_s_files_is_not_used(
    files: Path, compiled: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    for path in compiled("consistency-mnist").glob("compiled*"):
        shutil.copy(path, files)
    assert "it was compiled from the weights" in refused(files, "fp32", caplog, "fp32")


@pytest.mark.parametrize("with_sample", [False, True])
def test_a_network_of_another_kind_is_not_used(
    with_sample: bool, files: Path, compiled: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """As if it had been built so: a denoiser as an energy, whose answers have a gradient."""
    energy = shutil.copytree(compiled("energy-mnist-pcd"), files.with_name("energy"))
    for name in ("compiled.xml", "compiled.bin", *[SAMPLE] * with_sample):
        shutil.copy(files / name, energy)
    recorded(energy, PLAIN)
    with caplog.at_level(logging.INFO, logger=module.__name__):
        assert load_served(energy, CPU, "openvino", "fp32", budget=2).backend == "torchscript"
    assert "OpenVINO cannot be used, TorchScript is: " in caplog.text


@pytest.mark.parametrize("label", [3, 7, 10])
def test_what_a_network_knows_of_one_class_is_compared_too(
    label: int, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = directory.load_model(ROOT / "weights" / "diffusion-mnist")
    known = network.net.embed_class.weight[label].detach().numpy().tobytes()
    path = files / "compiled.bin"
    data = path.read_bytes()
    assert data.count(known) == 1
    path.write_bytes(data.replace(known, bytes(len(known))))
    recorded(files, PLAIN)
    assert "its answers in fp32 are off by" in refused(files, "fp32", caplog, "fp32")


@pytest.mark.parametrize(
    ("precision", "rest"), [("auto", OWN), ("fp32", "fp32"), ("bf16", "bf16"), ("int8", OWN)]
)
def test_torchscript_runs_in_the_precision_that_is_wished_for_or_its_own(
    precision: str, rest: str, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers_of(one_wrong)(files)
    assert "its answers in" in refused(files, precision, caplog, rest)


def test_without_openvino_torchscript_runs(
    files: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "openvino" in refused(files, "int8", caplog, OWN)


def test_a_size_whose_bits_differ_is_given_up(
    files: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this machine rounded a batch of four otherwise than others."""
    answer, sizes = Compiled.answer, set()

    def odd(self: Compiled, tensors: Sequence[Tensor], plan: Sequence[int]) -> Any:
        sizes.update(plan)
        return answer(self, tensors, plan) * (1 + 1e-6 * (4 in plan))

    expected = load_served(files, CPU, "openvino", "fp32", budget=12).model(*QUERY)
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, logger=module.__name__):
        patch.setattr(Compiled, "answer", odd)
        served = load_served(files, CPU, "openvino", "fp32", budget=12)
    assert (served.backend, sizes) == ("openvino", {1, 2, 4, 12, 16})
    assert isinstance(served.model, Compiled)
    assert served.model.ready == (1, 2, 12)
    assert "batches of 4 have other bits on this machine" in caplog.text
    assert torch.equal(served.model(*QUERY), expected)


def test_so_is_one_whose_bits_differ_for_few_images(
    files: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a plain energy in bf16, whose batches of one differ for one image in a hundred."""
    answer, known = Compiled.answer, Comparison.read(files / SAMPLE).query
    rare = Comparison.read(files / SAMPLE).variations()[-1]
    assert 0 < (rare.x - known.x).std() < 0.1

    def odd(self: Compiled, tensors: Sequence[Tensor], plan: Sequence[int]) -> Any:
        result = answer(self, tensors, plan)
        if 4 in plan and torch.equal(tensors[0], rare.x):
            result[5] += 1e-6
        return result

    with caplog.at_level(logging.INFO, logger=module.__name__):
        monkeypatch.setattr(Compiled, "answer", odd)
        served = load_served(files, CPU, "openvino", "fp32", budget=12)
    assert isinstance(served.model, Compiled)
    assert served.model.ready == (1, 2, 12)
    assert "batches of 4 have other bits on this machine" in caplog.text


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("onnx", "auto", "backend must be one of torchscript, openvino, got 'onnx'"),
        ("openvino", "fp16", "precision must be one of auto, fp32, bf16, int8, got 'fp16'"),
        ("torchscript", "int8", "precision int8 needs backend openvino, got 'torchscript'"),
    ],
)
def test_what_there_is_not_is_refused(backend: str, precision: str, message: str, exported: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_served(exported, CPU, backend, precision)
