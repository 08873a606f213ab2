"""Schedules of a term's weight."""
from typing import Optional

from ..errors import UserError


class WeightSchedule:
    """0 until ``start``, then linearly up to ``value``; linearly down to 0 before ``stop``.

    Counted in training iterations.

    Args:
        value (float): The weight between ramp and decay.
        start (int): First iteration with a weight.
        ramp (int): Iterations of the rise.
        stop (int, optional): First iteration without a weight again. Default: never.
        decay (int): Iterations of the fall, the last ones before ``stop``.

    Example:
        >>> weight = WeightSchedule(2.0, start=10, ramp=4, stop=30, decay=10)
        >>> [weight(i) for i in (9, 10, 12, 14, 20, 25, 30)]
        [0.0, 0.0, 1.0, 2.0, 2.0, 1.0, 0.0]
    """

    def __init__(self, value: float, start: int = 0, ramp: int = 0, stop: Optional[int] = None,
                 decay: int = 0):
        if min(start, ramp, decay) < 0 or (stop is None and decay):
            raise UserError(f'weight: expected start, ramp and decay >= 0, and stop with a decay; '
                            f'got start={start}, ramp={ramp}, stop={stop}, decay={decay}')
        if stop is not None and stop < start + ramp + decay:
            raise UserError(f'weight: stop={stop} is before the end of start + ramp + decay = '
                            f'{start + ramp + decay}; set a later stop')
        self.value, self.start, self.ramp = float(value), start, ramp
        self.stop, self.decay = stop, decay

    def __call__(self, iteration: int) -> float:
        """The weight in an iteration, counted from 0."""
        if iteration < self.start or (self.stop is not None and iteration >= self.stop):
            return 0.0
        factor = 1.0
        if iteration < self.start + self.ramp:
            factor = (iteration - self.start) / self.ramp
        elif self.stop is not None and iteration > self.stop - self.decay:
            factor = (self.stop - iteration) / self.decay
        return self.value * factor
