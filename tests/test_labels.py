"""Classes are ordered by name or number, and a label means one class."""

from hypothesis import given
from hypothesis import strategies as st

from genserve.labels import class_of, in_order, numbered


def test_numbers_are_in_the_order_of_their_values_and_names_in_that_of_text() -> None:
    assert in_order(str(k) for k in (10, 2, 0, 1)) == ("0", "1", "2", "10")
    assert in_order(["10", "2", "b"]) == ("10", "2", "b")
    assert in_order(["1", "01", "2"]) == ("01", "1", "2")
    assert in_order([]) == ()


def test_a_number_is_decimal_digits_and_nothing_else() -> None:
    assert numbered(["0", "10", "007"])
    for name in ("-1", "1.0", "\u0663", "1_0", " 1", "1e3", ""):
        assert not numbered(["0", name])


@given(
    st.lists(st.sampled_from([*map(str, range(5)), "cat", "01", "-1", "none"]), unique=True),
    st.integers(-2, 6),
)
def test_a_number_and_its_text_mean_the_same_class(classes: list[str], label: int) -> None:
    assert class_of(label, classes) == class_of(str(label), classes)
    for k, name in enumerate(classes):
        assert class_of(name, classes) == k  # every class can be asked for by name
