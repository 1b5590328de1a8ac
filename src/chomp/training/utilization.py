"""How well the steps use the device: model FLOPs against what it can multiply."""

from collections.abc import Callable

Row = dict[str, float]
TRIES = 3


class Utilization:
    """Turns step times into the share of the device's rate that the model's products reach.

    Args:
        flops: a device's share of the model FLOPs of a step.
        peak: the device's rate in FLOP/s; None: it isn't known, and measured when first needed.
        measure: makes the measurement of one large matrix product, in FLOP/s.
    """

    def __init__(self, flops: int, peak: float | None, measure: Callable[[], Callable[[], float]]):
        self._flops, self._peak, self._measure = flops, peak, measure
        self._measured: float | None = None

    def __call__(self, step_seconds: float) -> Row:
        """Return `mfu`, or `fraction_of_matmul_bound` where the peak isn't known.

        The device must be idle.
        """
        achieved = self._flops / step_seconds
        if self._peak is not None:
            return {"mfu": achieved / self._peak}
        if self._measured is None:
            run = self._measure()
            # The data's threads may be busy meanwhile: the best is what the device can do.
            self._measured = max(run() for _ in range(TRIES))
        return {"fraction_of_matmul_bound": achieved / self._measured}
