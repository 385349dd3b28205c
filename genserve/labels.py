"""Order classes by name or by number, and find the class of a label."""

from collections.abc import Iterable, Sequence

NO_CLASS = "none"  # the label for "no class"


def numbered(names: Iterable[str]) -> bool:
    """Return whether every name is a whole number in decimal digits, as those of MNIST are."""
    return all(name.isascii() and name.isdecimal() for name in names)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in the order of the classes: as text, or by value if all are whole numbers."""
    by_text = sorted(names)
    return tuple(sorted(by_text, key=int)) if numbered(by_text) else tuple(by_text)


def class_of(label: int | str, classes: Sequence[str]) -> int | None:
    """Return the index of a label's class, or None if no class has it; 2 and "2" mean the same.

    A label is a name or else an index. If all names are whole numbers it is only a name: as an index, 0 would
    be the class "1" of "1" to "10", and 1 the class "2".
    """
    by_index = {} if numbered(classes) else {str(k): k for k in range(len(classes))}
    return (by_index | {name: k for k, name in enumerate(classes)}).get(str(label))
