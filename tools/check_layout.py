"""Check that it stays easy to find one's way in the source: folders, circles, names, sizes, widths.

    python tools/check_layout.py             one line per finding; ends with 1 if there is any
    python tools/check_layout.py --report    the same, and ends with 0
    python tools/check_layout.py --summary   the number of findings of each kind, by package

The rules are in `layout_checks.py`; what is allowed in spite of them is `EXEMPTIONS` below.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from layout_checks import Finding, run_checks

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Exemption:
    """What one rule allows, and why. Path and subject may hold wildcards."""

    check: str
    path: str
    reason: str
    subject: str = "*"

    def covers(self, finding: Finding) -> bool:
        """Say whether a finding is allowed by this exemption."""
        return (
            finding.check == self.check
            and fnmatchcase(finding.path, self.path)
            and fnmatchcase(finding.subject, self.subject)
        )


EXEMPTIONS = (
    Exemption("flat-folder", "thresher/selectors", "one file per method, each found by its name"),
    Exemption("flat-folder", "thresher/curation/rules", "one file per rule, each found by its name"),
    Exemption("flat-folder", "thresher/cli", "one file per command"),
    Exemption("flat-folder", "tests/selectors", "one file per method, as in the package"),
    Exemption("flat-folder", "benchmarks", "one script per measurement, each named in the docs"),
    Exemption("getattr", "thresher/cli/usage.py", "errors of click, whose attributes differ by class"),
    Exemption("getattr", "thresher/jobs/job_file.py", "OSError has it, ValueError has not", "strerror"),
    Exemption("getattr", "thresher/evaluation/run.py", "a configuration of transformers", "eos_token_id"),
    Exemption(
        "getattr", "thresher/plugins.py", "what an ABC leaves open; other classes lack it", "__abstractmethods__"
    ),
    Exemption("getattr", "thresher/validation.py", "of types, of which some have no name", "__name__"),
    Exemption("getattr", "thresher/validation.py", "of numpy's numbers and arrays alike", "shape"),
)


def filter_findings(findings: Sequence[Finding], exemptions: Iterable[Exemption]) -> list[Finding]:
    """Return the findings that no exemption covers, and one for each exemption that covers nothing.

    A folder with one file per plug-in may be exempt before it has many files.
    """
    exemptions = tuple(exemptions)
    open_findings = [item for item in findings if not any(exemption.covers(item) for exemption in exemptions)]
    for exemption in exemptions:
        if exemption.check != "flat-folder" and not any(exemption.covers(item) for item in findings):
            message = f"nothing needs the exemption of {exemption.path} ({exemption.reason}): delete it"
            open_findings.append(Finding("tools/check_layout.py", 1, "exemption", exemption.path, message))
    return sorted(open_findings)


def format_summary(findings: Sequence[Finding]) -> str:
    """Return a table: one line per package, one column per check."""
    counts = Counter((_name_package(item.path), item.check) for item in findings)
    checks = sorted({check for _, check in counts})
    packages = sorted({package for package, _ in counts})
    width = max(map(len, packages), default=0)
    lines = [" ".join([" " * width, *checks])]
    for package in packages:
        cells = [str(counts[package, check] or "").rjust(len(check)) for check in checks]
        lines.append(" ".join([package.ljust(width), *cells]))
    return "\n".join([*lines, f"{len(findings)} findings"])


def _name_package(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[:2] if parts[0] in {"thresher", "tests"} else parts[:1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="repository (default: this one)")
    parser.add_argument("--report", action="store_true", help="end with 0 whatever is found")
    parser.add_argument("--summary", action="store_true", help="count the findings by package and end with 0")
    options = parser.parse_args(arguments)
    findings = filter_findings(run_checks(options.root), EXEMPTIONS if options.root == ROOT else ())
    if options.summary:
        print(format_summary(findings))
        return 0
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} findings; `--summary` counts them by package", file=sys.stderr)
    return 0 if options.report else int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
