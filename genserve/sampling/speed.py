"""How fast an evaluator is when it has much to do."""

MEASURED_S = 0.2  # of evaluations, before a speed is believed
LATELY_S = 10.0  # of evaluations; what is older counts half, a quarter and so on


class Speed:
    """Items per second of one evaluator in the fullest batches that it has had, as of late.

    Fuller batches take less time for each item, and when much waits, all are as full as they may be. So an
    emptier one says something only if it was faster: full ones are no slower now.
    """

    def __init__(self) -> None:
        self._fullest = 0
        self._items = self._seconds = 0.0

    def add(self, items: int, seconds: float) -> None:
        """Count a batch: its items, and the time until the next one could begin."""
        if items < self._fullest and items * self._seconds <= self._items * seconds:
            return
        if items > self._fullest:
            self._fullest, self._items, self._seconds = items, 0.0, 0.0
        self._items += items
        self._seconds += seconds
        if self._seconds > LATELY_S:
            self._items /= 2
            self._seconds /= 2

    @property
    def items_s(self) -> float:
        """Items per second; 0.0 until enough was measured."""
        return self._items / self._seconds if self._seconds >= MEASURED_S else 0.0
