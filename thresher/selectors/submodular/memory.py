"""What a kernel needs in memory, said before any of it is allocated."""

from __future__ import annotations

from typing import NamedTuple

from thresher.errors import InputError
from thresher.numeric.memory import USABLE, available_bytes
from thresher.numeric.units import format_bytes
from thresher.selectors.neighbors.limits import FLAT_ROWS

DENSE_PAIR_BYTES = 4  # a float32
BLOCK_BYTES = 1 << 25  # cosines that are computed and summed at once
# what was found (4); row and cosine of the graph, each pair both ways at most (16)
GRAPH_PAIR_BYTES = 20
FOUND_PAIR_BYTES = 8  # row and similarity, while neighbors are sought
# lists that a row looks into, by row and by list, of the rows that are sought for at once
SEARCH_ROW_BYTES = 2048
SEARCHED_ROWS = 1 << 18


class MemoryPlan(NamedTuple):
    """How pairs of rows will be compared.

    Attributes:
        kernel: "dense" or "sparse".
        n_bytes: peak beyond the features themselves, estimated from above.
        n_neighbors: of the sparse kernel, 0 for the dense one.
    """

    kernel: str
    n_bytes: int
    n_neighbors: int

    @property
    def notes(self) -> dict[str, str | int | float]:
        """What the manifest says of the plan."""
        return {"kernel": self.kernel, "planned_bytes": self.n_bytes}

    def told(self, name: str, n_rows: int, guarantee: str) -> str:
        """Say in one sentence what will be done, before it is."""
        pairs = "all pairs" if self.kernel == "dense" else f"{self.n_neighbors} nearest neighbors each"
        return f"{name}: {pairs} of {n_rows:,} distinct rows, about {format_bytes(self.n_bytes)}; {guarantee}"


class KernelSettings(NamedTuple):
    """Which pairs of rows the user wants compared.

    Attributes:
        name: of the selector, for messages.
        kernel: "dense", "sparse", or "auto" for dense where memory allows.
        n_neighbors: neighbors per row of the sparse kernel.
        max_kernel_gb: largest dense kernel, in 10^9 bytes.
    """

    name: str
    kernel: str
    n_neighbors: int
    max_kernel_gb: float


def plan_memory(settings: KernelSettings, n: int, d: int) -> MemoryPlan:
    """Choose the kernel for n distinct rows of d components.

    Raises:
        InputError: the dense kernel was asked for and is too large, or not even the sparse one
            fits.
    """
    limit = available_bytes()
    size_gb = 4e-9 * n * n
    dense = MemoryPlan("dense", int(DENSE_PAIR_BYTES * n * n) + 8 * n * d, 0)
    n_neighbors = min(settings.n_neighbors, max(n - 1, 0))
    pairs = n * (n_neighbors + 1)
    search = 0 if n <= FLAT_ROWS else FOUND_PAIR_BYTES * pairs + SEARCH_ROW_BYTES * min(n, SEARCHED_ROWS) + BLOCK_BYTES
    sparse = MemoryPlan("sparse", max(search, GRAPH_PAIR_BYTES * pairs) + 8 * n * d + 64 * n, n_neighbors)
    if settings.kernel != "sparse" and size_gb <= settings.max_kernel_gb and _fits(dense, limit):
        return dense
    if settings.kernel == "dense":
        bound = f"max_kernel_gb is {settings.max_kernel_gb:g}"
        if size_gb <= settings.max_kernel_gb:
            bound = f"{(limit or 0) / 1e9:.1f} GB are free"
        raise InputError(
            f"{settings.name}: a dense kernel of {n:,} distinct rows needs {size_gb:.1f} GB and {bound}; set "
            f"kernel to 'sparse', or raise max_kernel_gb if there is more memory"
        )
    if not _fits(sparse, limit):
        raise InputError(
            f"{settings.name}: a graph of {settings.n_neighbors} neighbors of {n:,} rows needs "
            f"{sparse.n_bytes / 1e9:.1f} GB and {(limit or 0) / 1e9:.1f} GB are free; lower n_neighbors, or "
            f"select from fewer rows"
        )
    return sparse


def _fits(plan: MemoryPlan, limit: int | None) -> bool:
    return limit is None or plan.n_bytes <= USABLE * limit


def plan_streamed_memory(settings: KernelSettings, n: int, d: int) -> MemoryPlan:
    """Plan a method that compares all pairs without storing them, or the neighbor graph.

    Raises:
        InputError: it does not fit.
    """
    if settings.kernel == "sparse":
        return plan_memory(settings, n, d)
    plan = MemoryPlan("dense", 4 * n * d + 64 * n + BLOCK_BYTES, 0)
    limit = available_bytes()
    if not _fits(plan, limit):
        raise InputError(
            f"{settings.name}: {n:,} rows of {d} components need {plan.n_bytes / 1e9:.1f} GB and "
            f"{(limit or 0) / 1e9:.1f} GB are free; select from fewer rows"
        )
    return plan
