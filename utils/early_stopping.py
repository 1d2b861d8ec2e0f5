"""Stop a training that no longer gets better."""

from __future__ import annotations

from utils.logger import LOGGER


class EarlyStopping:
    """Told the fitness of every epoch, says when to stop.

    Attributes:
        best_fitness, best_epoch: of the best one so far; patience: how many epochs without a better one are too many.
        possible_stop: whether the next epoch may be the last.
    """

    def __init__(self, patience: int = 30) -> None:
        """Wait for `patience` epochs; 0 for ever."""
        self.best_fitness, self.best_epoch = 0.0, 0
        self.patience = patience or float("inf")
        self.possible_stop = False

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Take in the fitness of an epoch and return whether to stop."""
        # 0 counts as better: early epochs often have no hit at all.
        if fitness >= self.best_fitness:
            self.best_epoch, self.best_fitness = epoch, fitness
        waited = epoch - self.best_epoch
        self.possible_stop = waited >= self.patience - 1
        stop = waited >= self.patience
        if stop:
            LOGGER.info(
                f"Stopping training early as no improvement observed in last {self.patience} epochs. "
                f"Best results observed at epoch {self.best_epoch}, best model saved as best.pt; "
                f"give --patience with a larger number, or 0 for no early stopping"
            )
        return stop
