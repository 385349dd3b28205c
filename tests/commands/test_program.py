"""`genserve COMMAND`: every command is there, by its old name too, and a mistake is one line."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from real_server import ROOT

from genserve.commands.__main__ import COMMANDS, listing, main
from genserve.commands.train import PROGRAMS

SCRIPTS = {
    "tune": "tune_steps",
    "evaluate": "evaluate.py",
    "figures": "figures.py",
    "detect": "detect.py",
    "generate": "generate.py",
    "archive": "build_archives",
    "serve": "serve",
    "models": "models",
    "health": "healthcheck",
    "bench-step": "bench_step.py",
    "simulate": "simulate.py",
    "gateway": "gateway",
}


def genserve(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "genserve", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["genserve"])
    with pytest.raises(SystemExit) if name != "train" else pytest.MonkeyPatch.context():
        main([name, "--help"])
    output = capsys.readouterr().out
    assert output.startswith(f"usage: genserve {name}")
    assert (import_module(COMMANDS[name][0]).__doc__ or "").splitlines()[0] in output.replace("\n", " ")


@pytest.mark.parametrize(("name", "script"), SCRIPTS.items())
def test_the_script_of_a_command_is_the_same_program(name: str, script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "110"},
    )
    assert (import_module(COMMANDS[name][0]).__doc__ or "").splitlines()[0] in done.stdout.replace("\n", " ")


def test_without_a_command_there_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out.strip() == listing()
    assert SCRIPTS.keys() < COMMANDS.keys()  # newer commands have no file of their own


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalute"], "there is no command 'evalute': did you mean evaluate?"),
        (["xyz"], "there is no command 'xyz': there are train, tune, "),
        (["train", "difusion"], "there is no training program 'difusion': did you mean diffusion?"),
    ],
)
def test_a_wrong_name_is_one_line_with_what_is_close(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert str(end.value.code).startswith(message)


def test_the_list_and_the_server_s_help_import_no_torch() -> None:
    code = "import sys; from genserve.commands.__main__ import main; main(sys.argv[1:]); sys.exit(77)"
    check = "import atexit; atexit.register(lambda: print('heavy', {'torch', 'numpy'} & set(sys.modules)))"
    for words in ([], ["serve", "--help"], ["archive", "--help"], ["train", "--help"]):
        program = f"import sys; {check}; {code.partition('; ')[2]}"
        done = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
        )
        assert done.stdout.rstrip().endswith("heavy set()"), done.stdout + done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_training_program_is_run_as_its_file_is(name: str, tmp_path: Path) -> None:
    done = genserve("train", name, "--batch-size", "0", cwd=tmp_path)
    direct = subprocess.run(
        [sys.executable, str(ROOT / "training" / PROGRAMS[name][0]), "--batch-size", "0"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == direct.returncode != 0
    assert done.stderr.splitlines()[-1] == direct.stderr.splitlines()[-1]


def test_torchrun_takes_a_command(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    flags = ["--run", "weights/diffusion-mnist", "--steps", "1", "--num-images", "20", "--seed", "5"]
    flags += ["--output-dir", str(tmp_path / "two")]
    command = [sys.executable, *torchrun, "genserve", "generate", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "two").glob("*.png"))) == 20
