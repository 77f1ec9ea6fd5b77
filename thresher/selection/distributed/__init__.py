"""Selection beyond one machine: a pool of files, worked on file by file.

    files -> rows -> features -> (partitions ->) picks -> one output file per shard

A shard is a file of the pool. Each stage writes one file per shard on storage that all nodes see,
under a temporary name that is then renamed, together with a record; a shard whose record is there
is done. A killed worker, node or run loses the shards it was at. What runs a stage is an engine of
two methods: this process (`InProcess`), or Ray (`ray_engine`). Imported by `selection.run` and
`cli`. A new stage is a dataclass with `__call__(number)` in the module of its step, run by
`StageRunner`; a new engine is a module like `ray_engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.lazy import export_lazily

if TYPE_CHECKING:
    from thresher.selection.distributed.engine import Engine, InProcess
    from thresher.selection.distributed.pool_files import PoolFiles, shards
    from thresher.selection.distributed.run import select_distributed

__all__ = ["Engine", "InProcess", "PoolFiles", "select_distributed", "shards"]

__getattr__ = export_lazily(
    __name__,
    {
        **dict.fromkeys(("Engine", "InProcess"), "engine"),
        **dict.fromkeys(("PoolFiles", "shards"), "pool_files"),
        "select_distributed": "run",
    },
)
