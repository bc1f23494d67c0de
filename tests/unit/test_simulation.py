"""The simulation against what was measured, and the page against the simulation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import simulate, simulation
from bench.cost_model import Measured, costs_of, read_measured


@pytest.fixture(scope="module")
def measured() -> Measured:
    return read_measured()


@pytest.fixture(scope="module")
def comparisons(measured: Measured) -> list[simulate.Comparison]:
    return simulate.compare(measured)


def test_the_simulation_comes_close_to_what_was_measured(comparisons: list[simulate.Comparison]) -> None:
    for each in comparisons:
        assert abs(each.apart) <= each.apart_max, f"{each.name}: {each.apart:+.0%}"


def test_the_page_has_what_the_simulation_says(
    measured: Measured, comparisons: list[simulate.Comparison]
) -> None:
    simulated = simulate.render(measured, comparisons)
    assert f"{simulate.BEGIN}\n{simulated}\n{simulate.END}" in simulate.PAGE.read_text()


def test_the_simulation_gives_the_same_each_time(measured: Measured) -> None:
    costs = costs_of(measured)
    first, second = (simulation.drained_per_second(costs, cores=2, workers=2, lines=4) for _ in range(2))
    assert first == second


def test_what_costs_more_takes_longer(measured: Measured) -> None:
    costs = costs_of(measured)
    dear = replace(costs, valkey_complete=2 * costs.valkey_complete)
    assert simulation.drained_per_second(dear, cores=2) < 0.8 * simulation.drained_per_second(costs, cores=2)


def test_a_second_worker_does_not_help_one_event_but_several(measured: Measured) -> None:
    costs = costs_of(measured)
    alone = simulation.drained_per_second(costs, cores=16)
    assert simulation.drained_per_second(costs, cores=16, workers=2) == alone
    assert simulation.drained_per_second(costs, cores=16, workers=2, lines=2) > 1.1 * alone
