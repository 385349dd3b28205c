"""Start the systems that scripts/bench compares, each alone, and stop them again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from answering import Ask, answering
from clients import PEERS, PYTHON, ROOT, environment
from systems import System

from genserve.backends import INT8, OPENVINO
from genserve.operate.building.backends import COMPILER
from genserve.operate.building.packing import imported

RUNS = {"diffusion": ROOT / "weights" / "diffusion-mnist", "energy": ROOT / "weights" / "energy-mnist"}
PORT = 19080


def served(system: System, scratch: Path) -> contextlib.AbstractContextManager[str]:
    """Run a system with a server until the block ends; yields the address that draws."""
    return application(system) if system.kind == "app" else torchserve(system, scratch)


@contextlib.contextmanager
def application(system: System) -> Iterator[str]:
    """Run a peer's app; its best settings here: a process per core."""
    cores = len(os.sched_getaffinity(0))
    app = [f"{system.name}_app:app", "--app-dir", PEERS, "--port", PORT, "--workers", cores]
    process = subprocess.Popen(
        [str(w) for w in [PYTHON, "-m", "uvicorn", *app, "--log-level", "error"]],
        env=environment(BENCH_RUN=str(RUNS[system.model]), BENCH_PRECISION=system.precision),
        start_new_session=True,
    )
    try:
        wait_for(PORT)
        yield f"http://127.0.0.1:{PORT}/generate"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def torchserve(system: System, scratch: Path) -> Iterator[str]:
    """Run TorchServe with one archive: of genserve, or with the plain handler."""
    store, home = scratch / f"store-{system.name}-{system.precision}", scratch / "home"
    if not store.exists():
        store.mkdir()
        if system.kind == "handler":
            plain_archive(store, system, scratch)
        else:
            build = [ROOT / "scripts" / "build_archives", "--model-store", store, *system.build_flags]
            subprocess.run([str(w) for w in build], check=True, stdout=subprocess.DEVNULL)
    options = ["--port", str(PORT), "--home", str(home), "--model-store", str(store)]
    subprocess.run([ROOT / "scripts" / "serve", "start", *options], check=True, stdout=subprocess.DEVNULL)
    try:
        model = "plain" if system.kind == "handler" else system.model
        yield f"http://127.0.0.1:{PORT}/predictions/{model}"
    finally:
        subprocess.run([ROOT / "scripts" / "serve", "stop", *options], check=True, stdout=subprocess.DEVNULL)


def plain_archive(store: Path, system: System, scratch: Path) -> None:
    """Pack the plain handler; its best settings here: one worker per core, one thread each."""
    cores = len(os.sched_getaffinity(0))
    config = scratch / "plain.yaml"
    config.write_text(
        f"minWorkers: {cores}\nmaxWorkers: {cores}\nbatchSize: {32 // cores}\nmaxBatchDelay: 10\n"
        f"responseTimeout: 600\nhandler: {{threads: 1, precision: {system.precision}}}\n"
    )
    extra = scratch / "extra"  # not "plain": the archiver deletes files of the model's name here
    copies = {"loop.py": PEERS / "loop.py"}
    copies |= {str(path.relative_to(ROOT)): path for path in imported(PEERS / "loop.py")}
    for name, source in copies.items():
        (extra / name).parent.mkdir(parents=True, exist_ok=True)
        (extra / name).write_bytes(source.read_bytes())
    command = [
        PYTHON, "-m", "model_archiver.model_packaging", "--model-name", "plain", "--version", "1.0",
        "--serialized-file", exported(system, scratch) / "model.pt",
        "--handler", PEERS / "torchserve_handler.py", "--export-path", store,
        "--config-file", config, "--extra-files", extra,
    ]  # fmt: skip
    subprocess.run([str(w) for w in command], check=True, env=environment(TMPDIR=str(scratch)))


def exported(system: System, scratch: Path) -> Path:
    """Return a folder with model.pt and model.json, as an archive of the system's backend has them."""
    int8 = ["int8"] if system.precision == INT8 else []
    folder = scratch / "-".join(["model", system.model, system.backend, *int8])
    if not folder.exists():
        run = [str(RUNS[system.model]), str(folder)]
        subprocess.run([str(PYTHON), "-m", "genserve.runs.export", *run], check=True, cwd=ROOT)
        if system.backend == OPENVINO and system.kind != "handler":
            subprocess.run([str(PYTHON), "-m", COMPILER, *run, *int8], check=True, cwd=ROOT)
    return folder


def looping(
    system: System, steps: int, seconds: float, scratch: Path
) -> contextlib.AbstractContextManager[Ask]:
    """Run loops without a server; what it yields lists the loops first, then returns images/s of each."""
    words = (exported(system, scratch), system.backend, system.precision, steps, seconds, "-")
    return answering(PEERS / "bare.py", *words)


def wait_for(port: int) -> None:
    """Wait until an app answers.

    Raises:
        SystemExit: it does not within a minute.
    """
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/docs", timeout=5):
            return
        time.sleep(0.1)
    sys.exit(f"no server answers on port {port}")
