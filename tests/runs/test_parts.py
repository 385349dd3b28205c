"""A batch is evaluated in the parts that cost least, by comparison with all there are."""

from itertools import pairwise

import pytest

from genserve.runs.compiled import CALL_ITEMS, SIZES, parts


def cheapest(n: int, allowed: tuple[int, ...]) -> float:
    """Return the least cost of evaluating n items, over every multiset of sizes that could be it."""
    if n <= 0:
        return 0.0
    if not allowed:
        return float("inf")
    size, *others = allowed
    counts = range(-(-n // size) + 1)
    return min(k * (size + CALL_ITEMS) + cheapest(n - k * size, tuple(others)) for k in counts)


@pytest.mark.parametrize("table", [*SIZES.values(), (1,), (1, 2), (4, 16)])
def test_parts_cover_the_items_at_the_least_cost(table: tuple[int, ...]) -> None:
    for n in range(1, 41):
        plan = parts(n, table)
        assert sum(plan) >= n
        assert sum(plan[:-1]) < n  # no part is of nothing but filling
        assert set(plan) <= set(table)
        assert all(a >= b for a, b in pairwise(plan))
        assert sum(plan) + CALL_ITEMS * len(plan) == cheapest(n, table)


@pytest.mark.parametrize("n", [0, -1])
def test_no_items_have_no_parts(n: int) -> None:
    with pytest.raises(ValueError, match=f"there are no {n} items to evaluate"):
        parts(n, (1, 2))
