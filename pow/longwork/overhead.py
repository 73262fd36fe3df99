"""What an engine takes from one run of a workflow to the next one, beside the work itself."""

# The weight of the newest measure in the running average.
_WEIGHT = 0.1


class Overhead:
    """A running average, which begins as a guess. In whichever thread: at worst a measure gets lost."""

    def __init__(self, guess_seconds: float) -> None:
        """
        Args:
            guess_seconds: what it is while nothing was measured here.
        """
        self.seconds = guess_seconds

    def add(self, seconds: float) -> None:
        """Count a measure."""
        self.seconds += _WEIGHT * (seconds - self.seconds)
