"""How well the steps use the device: model FLOPs against what it can multiply."""

from collections.abc import Callable

Row = dict[str, float]
TRIES = 3


class MfuMeter:
    """Turns step times into the share of the device's rate that the model's products reach.

    Args:
        flops: a device's share of the model FLOPs of a step.
        peak: the device's rate in FLOP/s; None: it isn't known, and measured when first needed.
        measure: makes the measurement of one large matrix product, in FLOP/s.
    """

    def __init__(self, flops: int, peak: float | None, measure: Callable[[], Callable[[], float]]):
        self._flops, self._peak, self._measure = flops, peak, measure
        self._run: Callable[[], float] | None = None
        self._measured = 0.0

    def __call__(self, step_seconds: float) -> Row:
        """Return `mfu`, or `fraction_of_matmul_bound` where the peak isn't known; never above 1.

        The device must be idle.
        """
        achieved = self._flops / step_seconds
        if self._peak is not None:
            return {"mfu": achieved / self._peak}
        if self._run is None:
            self._run = self._measure()
        if achieved > self._measured:
            # Not yet measured, or while other programs were busy: the best is what it can do.
            self._measured = max(self._measured, *(self._run() for _ in range(TRIES)))
        if achieved > self._measured:
            return {}  # a bound that is surpassed is none
        return {"fraction_of_matmul_bound": achieved / self._measured}
