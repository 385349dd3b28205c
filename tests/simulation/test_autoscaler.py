"""The autoscaler: the controller's own formula, its limits, and the values that are deployed."""

from random import Random

import pytest
import simpy
import yaml
from real_server import ROOT

from genserve.simulation.autoscaler import AS_DEPLOYED, Autoscaler, Scaling, wanted
from genserve.simulation.fleet import Fleet
from genserve.simulation.machine import Shape
from genserve.simulation.times import Times
from genserve.simulation.traffic import Arrival, Mix, steady

TIMES = Times(evaluation_ms={1: {1: 10.0, 32: 80.0}})
SHAPE = Shape(cores=1)
KUBERNETES = ROOT / "deploy/kubernetes"


@pytest.mark.parametrize(
    ("now", "ratio", "pods"),
    [(1, 2.0, 2), (4, 0.5, 2), (3, 1.09, 3), (3, 1.11, 4), (3, 0.91, 3), (2, 1.5, 3), (2, 0.0, 1)],
)
def test_pods_grow_with_the_ratio_rounded_up_and_not_within_a_tenth(
    now: int, ratio: float, pods: int
) -> None:
    assert wanted(now, ratio) == pods


def scaled(scaling: Scaling, rate: float, seconds: float, n: int = 1) -> Autoscaler:
    """Run a fleet under a steady load of requests of 520 evaluations on average."""
    env = simpy.Environment()
    fleet = Fleet(env, SHAPE, TIMES, "least-open", n, 0)
    autoscaler = Autoscaler(env, fleet, scaling)
    env.process(fleet.drive(steady(rate, seconds, Mix((1, 19), (4, 100)), Random(1))))
    env.run(until=seconds)
    return autoscaler


def test_a_load_for_three_servers_gets_them_and_no_more() -> None:
    rate = 3 * 0.6 * SHAPE.capacity(TIMES) / 520
    scaling = Scaling(signal="cpu", target=0.7, window_s=60, start_s=20, step=1, every_s=60)
    autoscaler = scaled(scaling, rate, 600)
    assert [pods for _, pods in autoscaler.history][:3] == [1, 2, 3]
    assert autoscaler.history[-1][1] in (3, 4)
    assert all(
        b[0] - a[0] >= 60 for a, b in zip(autoscaler.history[1:], autoscaler.history[2:], strict=False)
    )


def test_a_small_load_adds_no_server_and_a_flood_no_more_than_the_most() -> None:
    small = scaled(Scaling(signal="backlog", target=16, window_s=60), 0.1, 300)
    assert small.history == [(0.0, 1)]
    flood = scaled(Scaling(signal="backlog", target=1, window_s=15, start_s=5, most=4, step=2), 10, 120)
    assert flood.history[-1][1] == 4


def test_a_new_server_takes_requests_only_after_its_start() -> None:
    env = simpy.Environment()
    fleet = Fleet(env, SHAPE, TIMES, "round-robin", 1, 0)
    fleet.start(30.0)
    env.process(fleet.drive([Arrival(float(k), 1, 1) for k in range(60)]))
    env.run(until=29.0)
    assert (len(fleet.ready), fleet.starting) == (1, 1)
    env.run(until=61.0)
    first, second = (replica.server.totals.items for replica in fleet.ready)
    assert (first, second) == (45, 15)


def test_the_processor_is_full_long_before_the_backlog_says_so() -> None:
    """One request at a time keeps the lane busy; eight of them take hardly more of it."""
    env = simpy.Environment()
    fleet = Fleet(env, SHAPE, TIMES, "least-open", 1, 0)
    cpu = Autoscaler(env, fleet, Scaling(signal="cpu", target=10, window_s=30))
    backlog = Autoscaler(env, fleet, Scaling(signal="backlog", target=1000, window_s=30))
    env.process(fleet.drive([Arrival(0.0, 1, 10_000)]))
    env.run(until=46)
    assert (cpu.value(), backlog.value()) == pytest.approx((1.0, 1.0), abs=0.02)
    env.process(fleet.drive([Arrival(46.0, 7, 5_000)]))
    env.run(until=91)
    assert (cpu.value(), backlog.value()) == pytest.approx((1.0, 8.0), abs=0.02)


def test_the_rules_are_those_that_are_deployed() -> None:
    pods = yaml.safe_load((KUBERNETES / "base/scaling.yaml").read_text())["spec"]
    cpu = AS_DEPLOYED["cpu"]
    (metric,) = pods["metrics"]
    assert metric["resource"]["target"]["averageUtilization"] == 100 * cpu.target
    (policy,) = pods["behavior"]["scaleUp"]["policies"]
    assert (policy["value"], policy["periodSeconds"], pods["maxReplicas"]) == (
        cpu.step,
        cpu.every_s,
        cpu.most,
    )
    scaled = yaml.safe_load((KUBERNETES / "components/keda/scaled.yaml").read_text())["spec"]
    backlog = AS_DEPLOYED["backlog"]
    trigger = scaled["triggers"][0]["metadata"]
    assert float(trigger["threshold"]) == backlog.target
    assert f"[{backlog.window_s / 60:g}m]" in trigger["query"]
    assert scaled["maxReplicaCount"] == backlog.most
    assert "scaleUp" not in scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"signal": "memory"}, "signal must be one of cpu, backlog, got 'memory'"),
        ({"target": 0}, "target must be above 0, got 0"),
    ],
)
def test_a_wrong_rule_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scaling(**({"signal": "cpu", "target": 1.0, "window_s": 60} | values))  # type: ignore[arg-type]
