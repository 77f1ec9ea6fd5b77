"""The report: one self-contained HTML page of any output folder."""

from thresher.reporting.build import report

__all__ = ["report"]
