"""What methods of greedy coverage share: which pairs they compare, in how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thresher.features.container import Features
from thresher.selectors.contract import Selector
from thresher.selectors.nested import NestedSelector
from thresher.selectors.submodular.memory import KernelSettings, MemoryPlan, plan_memory
from thresher.selectors.submodular.optimizers import EPSILON, describe_guarantee
from thresher.validation import option

PARTS = (64, 32, 16, 8, 4, 2, 1)  # of the rows, to which rankings go


@dataclass(frozen=True, kw_only=True)
class PairwiseGreedy(Selector):
    """Settings and memory plan of a method on the cosines of pairs of rows.

    Attributes:
        kernel: "dense" compares all pairs, "sparse" only nearest neighbors, "auto" is dense where
            memory allows.
        n_neighbors: neighbors per row of the sparse kernel.
        max_kernel_gb: largest dense kernel, in 10^9 bytes.
        optimizer: "lazy", "stochastic" or "threshold".
        epsilon: what the last two give away.
    """

    kernel: Literal["auto", "dense", "sparse"] = "auto"
    n_neighbors: int = option(64, ge=1)
    max_kernel_gb: float = option(2.0, ge=0, le=1e6)
    optimizer: Literal["lazy", "stochastic", "threshold"] = "lazy"
    epsilon: float = option(EPSILON, ge=1e-6, le=1 - 1e-6)

    def describe_plan(self, features: Features) -> str:
        """Say how pairs will be compared, in how much memory, and what is known of the picks.

        Raises:
            InputError: not even the sparse kernel fits into memory.
        """
        n, d = self._compared(features)
        plan = self._plan_memory(n, d)
        return plan.told(self.name, n, self._guarantee(plan))

    def estimate_memory(self, n_rows: int, n_unique: int, n_dimensions: int) -> int:
        """Return the peak in bytes beyond the features themselves."""
        return self._plan_memory(n_rows, n_dimensions).n_bytes

    def _compared(self, features: Features) -> tuple[int, int]:
        """Return how many rows are compared, of how many components."""
        n, d = features["embedding"].shape
        return n, d

    def _plan_memory(self, n: int, d: int) -> MemoryPlan:
        return plan_memory(KernelSettings(self.name, self.kernel, self.n_neighbors, self.max_kernel_gb), n, d)

    def _guarantee(self, plan: MemoryPlan) -> str:
        """Say what every prefix of the picks has of the largest objective."""
        return describe_guarantee(self.optimizer, self.epsilon, plan.n_neighbors)


@dataclass(frozen=True, kw_only=True)
class NestedGreedy(PairwiseGreedy, NestedSelector):
    """A method of one greedy run, which costs little beyond its first picks.

    Attributes:
        kernel, n_neighbors, max_kernel_gb, optimizer, epsilon: as in `PairwiseGreedy`.
    """

    def list_lengths(self, n_ranked: int, n_rows: int) -> list[int]:
        """Return 1/64, 1/32, ... of the rows, or all of them, as far as they reach.

        So a smaller budget is read off a larger one's ranking. A larger one picks anew from the
        kept graph: all picks together take less time than reading the graph. The other optimizers
        look through the rows at each pick, and rank no row more than asked.
        """
        if self.optimizer != "lazy":
            return [n_ranked]
        return [length for part in PARTS if (length := n_rows // part) >= n_ranked]
