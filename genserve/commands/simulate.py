"""Simulate servers behind a proxy, by the rules of the real one and with measured times.

    genserve simulate policies       p50 and p95 by load, servers and policy of the proxy
    genserve simulate signals        what the processor and the backlog say at each load
    genserve simulate day            servers for a number of pictures a day, here and on a GPU
    genserve simulate surges         a load that grows, and autoscalers that come too late
    genserve simulate crowds         clients of one server that ask again at once, as in docs/benchmarks.md
    genserve simulate check --address http://127.0.0.1:8080/predictions/diffusion
                                     the same requests for a real server and a simulated one, side by side
    genserve simulate measure --address ... --home .serve --out times.json
                                     evaluations, and the other work of an idle server

The engine, the rule of admission and the time slices of a visit are the code that serves. What is simulated
is the time that things take (--times), the host's queue, the proxy and the autoscaler. docs/scale.md has
results.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from genserve.cli import config_of, plain_errors, typed_command
from genserve.operate.process import running
from genserve.places import located
from genserve.simulation import answers
from genserve.simulation.autoscaler import AS_DEPLOYED
from genserve.simulation.crowd import asked
from genserve.simulation.fleet import POLICIES, Summary, simulated
from genserve.simulation.machine import shipped
from genserve.simulation.measuring import CLOCKS, beside_evaluations, circumstances, evaluation_ms, served
from genserve.simulation.times import Times, read_times, write_times
from genserve.simulation.traffic import Mix, steady

TIMES = "weights/diffusion-mnist/step-times.json"
START_S = (30.0, 180.0)  # a pod on a node that is there, and on one that must be made: assumed


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """What to simulate.

    Args:
        questions: policies, signals, day, surges, crowds, check, measure.
        times: file of measured times, as `measure` writes it.
        images: fewest and most images of a request.
        steps: fewest and most steps.
        loads: of the servers, as shares of what they evaluate per second in full batches.
        replicas: numbers of servers.
        growth: of the load in `surges`, names in its first column; if not given, all.
        clients: numbers of them, of `crowds`.
        workers: of each server, which share its cores.
        seconds: of each simulation, and of each load of `check`.
        seed: of arrivals and of the policies' draws.
        pictures: per day, of `day`.
        peaks: highest rate of a day as multiples of its mean.
        p95: seconds that 95 % of the requests of `day` must be answered in.
        gpu_ms: of an evaluation on a GPU, whatever its images, shortest and longest; assumed.
        address: of a model's predictions on a real server, of `check` and `measure`.
        home: of the server at --address, if it is on this machine, to see what its processes use.
        run: run directory of the model that `measure` evaluates.
        clock: of `measure`: wall, or cpu on a machine that others load.
        patience_s: of `measure`: how long to wait for moments in which the machine is quiet.
        start_s: of `measure`: what a server took to start, to be kept in the file.
        out: file that `measure` writes.
    """

    questions: tuple[str, ...]
    times: str = TIMES
    images: tuple[int, ...] = (1, 4)
    steps: tuple[int, ...] = (4, 100)
    loads: tuple[float, ...] = (0.3, 0.5, 0.7, 0.8, 0.9)
    replicas: tuple[int, ...] = (1, 2, 4, 8)
    growth: tuple[str, ...] = tuple(answers.SURGES)
    clients: tuple[int, ...] = (1, 8, 32)
    workers: int = 1
    seconds: float = 120.0
    seed: int = 0
    pictures: float = 1e6
    peaks: tuple[float, ...] = (1.0, 3.0, 5.0)
    p95: float = 2.0
    gpu_ms: tuple[float, ...] = (2.0, 8.0)
    address: str = ""
    home: str = ""
    run: str = "weights/diffusion-mnist"
    clock: str = "wall"
    patience_s: float = 0.0
    start_s: float = 0.0
    out: str = "out/step-times.json"

    def __post_init__(self) -> None:
        for name in ("images", "steps", "gpu_ms"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name} must be two numbers, fewest and most, got {getattr(self, name)}")
        for name in ("loads", "replicas", "clients", "peaks", "gpu_ms"):
            if not all(value > 0 for value in getattr(self, name)):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("seconds", "pictures", "p95", "workers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if unknown := set(self.growth) - set(answers.SURGES):
            raise ValueError(f"growth must be of {', '.join(answers.SURGES)}, got {', '.join(unknown)}")
        if self.clock not in CLOCKS:
            raise ValueError(f"clock must be one of {', '.join(CLOCKS)}, got {self.clock!r}")
        if {"check", "measure"} & set(self.questions) and not self.address:
            raise ValueError(
                "check and measure need --address, such as http://127.0.0.1:8080/predictions/diffusion"
            )

    def setup(self) -> answers.Setup:
        """Return what the simulations share: the shape of a server as it is shipped, on the measured machine.

        Raises:
            OSError, ValueError: the file of times cannot be read.
        """
        times = read_times(located(self.times))
        mix = Mix((self.images[0], self.images[1]), (self.steps[0], self.steps[1]))
        shape = replace(shipped(), cores=len(times.evaluation_ms), workers=self.workers)
        return answers.Setup(times=times, shape=shape, mix=mix, seconds=self.seconds, seed=self.seed)


def table(heads: list[str], rows: Iterable[list[object]]) -> None:
    """Print a table in Markdown, each row as soon as it is known."""
    print("| " + " | ".join(heads) + " |")
    print("|" + "---:|" * len(heads))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def seconds(value: float) -> str:
    """Return a time as it is shown."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def policies(config: SimulateConfig) -> None:
    """Print p50 and p95 under each policy of the proxy."""
    setup = config.setup()
    table(
        ["servers", "load", *(f"{name}: p50 / p95, s" for name in POLICIES)],
        (
            [n, load, *(f"{seconds(one.p50)} / {seconds(one.p95)}" for one in summaries.values())]
            for n, load, summaries in answers.by_policy(setup, config.replicas, config.loads)
        ),
    )


def signals(config: SimulateConfig) -> None:
    """Print what two signals say at each load of one server."""
    setup = config.setup()

    def row(load: float) -> list[object]:
        summary, cpu, backlog = setup.steady(setup.rate(load), 1, "least-open")
        return [
            load,
            f"{cpu:.0%}",
            f"{backlog:.1f}",
            seconds(summary.p50),
            seconds(summary.p95),
            f"{summary.refused:.1%}",
        ]

    heads = ["load", "cores in use", "open images per evaluator", "p50, s", "p95, s", "refused"]
    table(heads, map(row, config.loads))


def day(config: SimulateConfig) -> None:
    """Print the servers that a number of pictures a day needs."""
    measured = config.setup()
    machines = {f"{measured.shape.cores} cores, measured": measured}
    for ms in config.gpu_ms:
        times = Times(evaluation_ms={1: {1: ms, measured.shape.budget: ms}}, host_ms=measured.times.host_ms)
        shape = replace(measured.shape, cores=1, workers=1)
        machines[f"a GPU at {ms:g} ms, assumed"] = replace(measured, times=times, shape=shape)

    def rows() -> Iterable[list[object]]:
        for name, setup in machines.items():
            for peak in config.peaks:
                n, summary, cpu = answers.needed(setup, config.pictures, peak, config.p95)
                rate = peak * config.pictures / answers.DAY_S
                yield [
                    name,
                    f"{peak:g}",
                    f"{rate:.1f}",
                    n,
                    f"{cpu:.0%}",
                    seconds(summary.p50),
                    seconds(summary.p95),
                ]

    heads = ["server", "peak", "pictures/s", "servers", "cores or GPU in use", "p50, s", "p95, s"]
    table(heads, rows())


def surges(config: SimulateConfig) -> None:
    """Print what happens to a load that grows, by signal, start-up time and servers at the beginning."""
    setup, load = config.setup(), config.loads[0]

    def rows() -> Iterable[list[object]]:
        for surge in (answers.SURGES[name] for name in config.growth):
            for signal in AS_DEPLOYED:
                for n, start_s in ((2, START_S[0]), (2, START_S[1]), (4, START_S[0])):
                    ride = answers.ridden(setup, surge, signal, n, start_s, load)
                    one = ride.summary
                    first = f"{ride.first_s:.0f}" if ride.first_s == ride.first_s else "-"
                    yield [
                        surge.name, n, signal, f"{start_s:g}", first, ride.pods,
                        f"{ride.backlog:.0f}", seconds(one.p95), f"{one.refused:.1%}",
                    ]  # fmt: skip

    print(f"Before: {load:g} of what two servers evaluate.\n")
    heads = ["load", "servers before", "signal", "start, s", "first new one after, s", "servers after"]
    table([*heads, "most open images per evaluator", "p95, s", "refused"], rows())


def crowds(config: SimulateConfig) -> None:
    """Print what clients get that ask again at once."""
    setup = config.setup()
    summaries = ((n, answers.crowded(setup, n)) for n in config.clients)
    rows = ([n, f"{one.images_s:.1f}", seconds(one.p50), seconds(one.p95)] for n, one in summaries)
    table(["clients", "images/s", "p50, s", "p95, s"], rows)


def check(config: SimulateConfig) -> None:
    """Ask a real server and a simulated one the same, and print both."""
    setup = config.setup()

    def rows() -> Iterable[list[object]]:
        for load in config.loads:
            requests = list(steady(setup.rate(load), config.seconds, setup.mix, Random(config.seed)))
            real = Summary.of(asked(config.address, requests), config.seconds)
            busy = os.getloadavg()[0]
            outcomes, _ = simulated(requests, shape=setup.shape, times=setup.times)
            virtual = Summary.of(outcomes, config.seconds)
            pairs = [
                (getattr(real, name), getattr(virtual, name))
                for name in ("p50", "p95", "images_s", "refused")
            ]
            cells = [f"{a:.2f} / {b:.2f} ({b / a - 1:+.0%})" for a, b in pairs[:3]]
            yield [load, len(requests), *cells, f"{pairs[3][0]:.1%} / {pairs[3][1]:.1%}", f"{busy:.1f}"]

    heads = ["load", "requests", "p50, s: real / simulated", "p95, s", "images/s", "refused", "load average"]
    table(heads, rows())


def measure(config: SimulateConfig) -> None:
    """Measure this machine and write the file of times."""
    cores = len(os.sched_getaffinity(0))
    shape, by, model = served(located(config.run), shipped().budget, cores)
    about = circumstances(command=typed_command(), run=config.run, **by, clock=config.clock)
    tables = evaluation_ms(model, shape, cores, clock=config.clock, patience_s=config.patience_s)
    one = evaluation_ms(model, shape, 1, sizes=(1,), clock="cpu")[1][1]
    server = running(Path(config.home)) if config.home else None
    beside = beside_evaluations(config.address, server["pid"] if server else None, one)
    about["load_average_after"] = circumstances()["load_average"]
    rounded = {n: {k: round(ms, 3) for k, ms in row.items()} for n, row in tables.items()}
    times = Times(evaluation_ms=rounded, **beside, start_s=config.start_s, about=about)
    Path(config.out).parent.mkdir(parents=True, exist_ok=True)
    write_times(Path(config.out), times)
    table(["lanes", *map(str, rounded[1])], ([n, *row.values()] for n, row in rounded.items()))
    print(
        f"\nms per evaluation; {', '.join(f'{name} {value}' for name, value in beside.items())}; {config.out}"
    )


QUESTIONS: dict[str, Callable[[SimulateConfig], None]] = {
    "policies": policies,
    "signals": signals,
    "day": day,
    "surges": surges,
    "crowds": crowds,
    "check": check,
    "measure": measure,
}


def command_line(argv: list[str]) -> SimulateConfig:
    """Return what the flags ask for; dashes and underscores are alike."""
    lists = {
        "images": (int, "fewest and most images of a request"),
        "steps": (int, "fewest and most steps of a request"),
        "loads": (float, "shares of what the servers evaluate per second in full batches"),
        "replicas": (int, "numbers of servers"),
        "growth": (str, "of the load in surges, names in its first column"),
        "clients": (int, "numbers of clients"),
        "peaks": (float, "highest rate of a day as multiples of its mean"),
        "gpu_ms": (float, "shortest and longest evaluation on a GPU; assumed"),
    }
    positional = ("questions", list(QUESTIONS), "as in the list above")
    return config_of(SimulateConfig, __doc__, argv, lists=lists, positional=positional)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        config = command_line(argv)
        for question in config.questions:
            QUESTIONS[question](config)
