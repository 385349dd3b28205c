"""A compiled run: what is written, the same bytes every time, nothing of the machine, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from real_server import ROOT
from small_networks import KINDS, SHAPE, network, write_run
from torch import Tensor

from genserve.compiling.convert import SAMPLES, compile_run
from genserve.files import read_json
from genserve.runs.comparison import SAMPLE, Comparison
from genserve.runs.compiled import openvino
from genserve.sampling.langevin import slope

PLAIN, QUANTIZED = (
    {"compiled.xml", "compiled.bin", "compiled.json", SAMPLE},
    {"compiled-int8.xml", "compiled-int8.bin", "compiled-int8.json", SAMPLE},
)
CASES = [(kind, int8) for kind in KINDS for int8 in (False, True) if not (kind and int8)]
IDS = [f"{kind or 'denoiser'}{'-int8' * int8}" for kind, int8 in CASES]
# It names what it has imported, after it has compiled.
PROGRAM = """
import sys
from pathlib import Path
from genserve.compiling.convert import compile_run
compile_run(Path(sys.argv[1]), Path(sys.argv[2]), int8=sys.argv[3:] == ["int8"])
names = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
print("modules:", *sorted(names))
"""


def compiled_apart(run: Path, out: Path, int8: bool) -> set[str]:
    """Compile in a fresh process, as an archive is built; return what the process has imported."""
    command = [sys.executable, "-c", PROGRAM, str(run), str(out), *["int8"] * int8]
    environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=out.parent
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("modules: ").split())


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def twice(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[Path], list[set[str]]]:
    """A kind of network, two folders in which it was compiled, and what was imported for that."""
    kind, int8 = request.param
    folder = tmp_path_factory.mktemp("twice")
    run = write_run(folder / "run", kind)
    outs = [folder / "first", folder / "second"]
    return kind, outs, [compiled_apart(run, out, int8) for out in outs]


def test_the_same_run_gives_the_same_bytes(twice: tuple[str, list[Path], list[set[str]]]) -> None:
    first, second = ({file.name: file.read_bytes() for file in out.iterdir()} for out in twice[1])
    assert first.keys() in (PLAIN, QUANTIZED)
    assert first == second


def test_its_record_names_the_sizes_whose_bits_can_agree(
    twice: tuple[str, list[Path], list[set[str]]],
) -> None:
    kind, (out, _), _ = twice
    (record,) = (read_json(path) for path in out.glob("compiled*.json"))
    assert record["sizes"] == {"plain": [16], "residual": [1, 4, 16]}.get(kind, [1, 2, 4, 12, 16])


def test_nothing_tells_the_maker_of_openvino_of_it(twice: tuple[str, list[Path], list[set[str]]]) -> None:
    for modules in twice[2]:
        assert {"openvino", "torch"} <= modules
        assert "openvino_telemetry" not in modules


def test_it_says_nothing_of_the_machine(twice: tuple[str, list[Path], list[set[str]]]) -> None:
    folder = twice[1][0]
    for file in folder.iterdir():
        content = file.read_bytes()
        for place in (
            folder.parent,
            ROOT,
            sys.prefix,
            Path.home(),
            sys.executable,
            Path(torch.__file__).parent,
        ):
            assert str(place).encode() not in content, (file.name, place)


def test_its_inputs_are_named_and_take_any_number_of_images(
    twice: tuple[str, list[Path], list[set[str]]],
) -> None:
    kind, (folder, _), _ = twice
    (file,) = folder.glob("*.xml")
    model = openvino().Core().read_model(file)
    shapes = {port.any_name: [str(n) for n in port.partial_shape] for port in model.inputs}
    expected = {"x": ["?", *map(str, SHAPE)], "sigma": ["?"], "y": ["?"], "c_noise": ["?", "1"]}
    if kind == "plain":
        del expected["c_noise"]
    assert shapes == expected
    assert len(model.outputs) == (2 if kind else 1)


def test_its_sample_holds_the_answers_of_the_trained_network(
    twice: tuple[str, list[Path], list[set[str]]],
) -> None:
    """In fp32 exactly; in bf16 something near, and not the same."""
    kind, (folder, _), _ = twice
    sample = Comparison.read(folder / SAMPLE)
    assert len(sample.query.x) == SAMPLES
    answers = expected_of(kind, *sample.query)
    for answer, rounded, expected in zip(sample.answers, sample.rounded, answers, strict=True):
        torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)
        assert 0 < (rounded - expected).norm() < 0.1 * expected.norm()
    if kind != "plain":  # it is drawn from at one level, and knows no classes
        levels = sample.query.sigma
        assert levels.max() > 1000 * levels.min()
        assert set(sample.query.y.tolist()) == {0, 1, 2}


def expected_of(kind: str, x: Tensor, sigma: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return tuple(slope(network(kind), x, sigma, y)) if kind else (network()(x, sigma, y),)


@pytest.mark.parametrize(
    ("run", "family"), [("gan-mnist", "gan"), ("text-austen", "text"), ("labels-mnist", "labels")]
)
def test_a_run_of_another_family_is_refused(run: str, family: str, tmp_path: Path) -> None:
    message = f"is of the family {family}; OpenVINO compiles diffusion and energy"
    with pytest.raises(ValueError, match=message):
        compile_run(ROOT / "weights" / run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["residual", "plain"])
def test_an_energy_is_not_compiled_in_int8(kind: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", kind)
    with pytest.raises(ValueError, match="is an energy: int8 is for denoisers"):
        compile_run(run, tmp_path / "out", int8=True)
    assert not (tmp_path / "out").exists()


def test_the_program_says_in_one_line_what_it_takes_and_what_is_wrong(tmp_path: Path) -> None:
    gan = str(ROOT / "weights" / "gan-mnist")
    for words, message in (
        ([gan], "usage: python -m genserve.compiling.convert RUN OUTPUT [int8]"),
        ([gan, str(tmp_path), "int4"], "usage: python -m genserve.compiling.convert RUN OUTPUT [int8]"),
        ([gan, str(tmp_path)], f"{gan} is of the family gan; OpenVINO compiles diffusion and energy"),
        ([str(tmp_path / "none"), str(tmp_path)], str(tmp_path / "none")),
    ):
        command = [sys.executable, "-m", "genserve.compiling.convert", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("run", ["diffusion-mnist", "consistency-mnist"])
def test_the_files_of_a_shipped_run_say_nothing_of_the_machine(
    run: str, compiled: Callable[[str], Path]
) -> None:
    files = {file.name: file for file in compiled(run).iterdir()}
    assert files.keys() >= PLAIN | QUANTIZED
    for name in PLAIN | QUANTIZED:
        for place in (ROOT, sys.prefix, Path.home(), compiled(run)):
            assert str(place).encode() not in files[name].read_bytes(), (name, place)
