"""What the methods that cover rows by greedy picks share: which pairs they compare, in how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from thresher.features.container import Features
from thresher.selectors.checks import check_number, check_one_of, check_whole
from thresher.selectors.submodular.memory import KernelSettings, MemoryPlan, plan_memory
from thresher.selectors.submodular.optimizers import EPSILON, OPTIMIZERS, check_optimizer, guarantee_of


@dataclass(frozen=True, kw_only=True)
class PairwiseGreedy:
    """Settings and memory plan of a method on the cosines of pairs of rows.

    Attributes:
        kernel: "dense" compares all pairs, "sparse" only nearest neighbors, "auto" is dense where
            memory allows.
        n_neighbors: neighbors per row of the sparse kernel.
        max_kernel_gb: largest dense kernel, in 10^9 bytes.
        optimizer: "lazy", "stochastic" or "threshold".
        epsilon: what the last two give away.
    """

    name: ClassVar[str]
    is_of_distinct: ClassVar[bool] = False  # equal rows are compared once

    kernel: str = "auto"
    n_neighbors: int = 64
    max_kernel_gb: float = 2.0
    optimizer: str = OPTIMIZERS[0]
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        """Check the settings."""
        check_one_of(self.name, "kernel", self.kernel, ("auto", "dense", "sparse"))
        check_whole(self.name, "n_neighbors", self.n_neighbors, 1)
        check_number(self.name, "max_kernel_gb", self.max_kernel_gb, 0.0, 1e6)
        check_optimizer(self.name, self.optimizer, self.epsilon)

    def plan(self, features: Features) -> str:
        """Say how pairs will be compared, in how much memory, and what is known of the picks.

        Raises:
            InputError: not even the sparse kernel fits into memory.
        """
        n, d = self.compared(features)
        plan = self.memory(n, d)
        return plan.told(self.name, n, self.guarantee(plan))

    def compared(self, features: Features) -> tuple[int, int]:
        """Return how many rows are compared, of how many components."""
        n, d = features["embedding"].shape
        return n, d

    def memory(self, n: int, d: int) -> MemoryPlan:
        """Plan for n rows of d components."""
        return plan_memory(KernelSettings(self.name, self.kernel, self.n_neighbors, self.max_kernel_gb), n, d)

    def guarantee(self, plan: MemoryPlan) -> str:
        """Say what every prefix of the picks has of the largest objective."""
        return guarantee_of(self.optimizer, self.epsilon, plan.n_neighbors)
