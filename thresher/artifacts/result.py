"""What every arrow returns: where it is written, what ran, its facts, and its page."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import OutputFolder, copy_folder
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.remote.places import show_place
from thresher.artifacts.seal import find_damage
from thresher.errors import ManifestError
from thresher.printable import escape_html, join_lines, render_table

PAGES = "thresher.notebook.results"  # above this package: imported when a page is asked for


@dataclass(frozen=True)
class Excerpt:
    """Some rows of a result, as a notebook shows them.

    Attributes:
        title: above them.
        columns: their names.
        lines: of cells.
    """

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Any]]


def open_folder(folder: str | Path, kind: str, what: str) -> tuple[Path, Manifest]:
    """Return the path of a result's folder, fetched if it has an address, and its manifest.

    Args:
        folder: path or address.
        kind: that the result must have.
        what: the same in words, for the message.

    Raises:
        InputError: nothing can be read at the address.
        ManifestError: the folder is of another kind, or is damaged.
    """
    path = expand_path(localize(folder))
    return path, Manifest.read_kind(path, kind, what)


class Result(ABC):
    """The shape of all results; `thresher.open(result.path)` gives back the same kind.

    Attributes:
        path: of the folder (of `score`, of the file), or None when none was asked for.
        manifest: what ran, on which rows, with which settings and versions.
    """

    path: Path | None
    manifest: Manifest

    @abstractmethod
    def list_facts(self) -> list[tuple[str, str]]:
        """Return what a person wants to know first, as (name, text)."""

    def list_excerpts(self) -> list[Excerpt]:
        """Return the rows that a notebook shows below the facts."""
        return []

    def summary(self) -> str:
        """Return the facts, one line each, and where the result is."""
        facts = self._list_lines()
        width = max(len(name) for name, _ in facts) + 2
        return join_lines([type(self).__name__, *(f"  {name:<{width}}{text}" for name, text in facts)])

    def report(self) -> Path:
        """Write the page of this result, and return its path; `thresher.report` says more."""
        page: Path = importlib.import_module(PAGES).report(self)
        return page

    def _list_lines(self) -> list[tuple[str, str]]:
        return [*self.list_facts(), *([] if self.path is None else [("path", show_place(str(self.path)))])]

    def __repr__(self) -> str:
        """Return the summary."""
        return self.summary()

    def _repr_html_(self) -> str:
        """Return the facts and some rows as HTML; all text is escaped."""
        facts = "".join(
            f"<tr><th style='text-align:left'>{escape_html(name)}</th>"
            f"<td style='text-align:left'>{escape_html(text)}</td></tr>"
            for name, text in self._list_lines()
        )
        rows = (
            f"<b>{escape_html(one.title)}</b>{render_table(one.columns, one.lines)}" for one in self.list_excerpts()
        )
        return f"<table>{facts}</table>{''.join(rows)}"


def copy_result(source: Path, manifest: Manifest, folder: str | Path, *, force: bool) -> Path:
    """Copy the folder of a result, whole or not at all, and return its path.

    Args:
        source: the folder.
        manifest: as it was read there.
        folder: where to.
        force: replace an earlier result.

    Raises:
        ManifestError: a file of the result is damaged or missing.
        OutputError: the folder holds something else and `force` is not set, or cannot be written.
    """
    with OutputFolder(folder, identity=manifest.identity, force=force) as out:
        if not out.is_done:
            damage = find_damage(source)
            if damage is not None:
                raise ManifestError(f"{damage}; make it again")
            copy_folder(source, out.work)
            out.publish()
        return out.path
