"""`thresher doctor`: what is installed here, what is missing, and what for."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from thresher.cli.output import print_json, print_line
from thresher.errors import MissingExtraError, install_command
from thresher.numeric.units import format_bytes


class Extra(NamedTuple):
    """Packages that belong together.

    Attributes:
        name: of the extra.
        use: what they are for.
        packages: module -> distribution.
    """

    name: str
    use: str
    packages: dict[str, str]


EXTRAS = (
    Extra(
        "train",
        "train, tune, curve and compare; methods that use a language model",
        {"torch": "torch", "transformers": "transformers", "peft": "peft", "accelerate": "accelerate"},
    ),
    Extra(
        "encoders",
        "select, curate and compare by embeddings",
        {"torch": "torch", "sentence_transformers": "sentence-transformers"},
    ),
    Extra("report", "report, and the page of a curve or comparison", {"jinja2": "Jinja2", "matplotlib": "matplotlib"}),
    Extra("hub", "Hub data sets, to_pandas and to_datasets", {"datasets": "datasets", "pandas": "pandas"}),
    Extra("remote", "rows and results at s3:// and https://", {"fsspec": "fsspec", "s3fs": "s3fs"}),
    Extra("gcs", "rows and results at gs://", {"gcsfs": "gcsfs"}),
    *(
        Extra(name, f"logging of runs to {name}", {name: name})
        for name in ("wandb", "mlflow", "trackio", "tensorboard")
    ),
    Extra("gpu", "4-bit base models (needs CUDA)", {"bitsandbytes": "bitsandbytes"}),
    Extra("language", "the rule that detects languages", {"py3langid": "py3langid"}),
    Extra("pii", "the rule that masks phone numbers", {"phonenumbers": "phonenumbers"}),
    Extra("sql", "jobs that read a database", {"connectorx": "connectorx"}),
    Extra("tune", "tune", {"optuna": "optuna"}),
    Extra("lm-eval", "metrics lm-eval:TASK", {"lm_eval": "lm-eval"}),
    Extra("ray", "select --engine ray, on a cluster", {"ray": "ray"}),
    Extra("server", "models on a server", {"httpx2": "httpx2"}),
)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """Show what is installed, and what is missing and what needs it; imports nothing heavy.

    [bold]Example:[/bold] thresher doctor
    """
    facts = examine()
    if as_json:
        print_json(facts)
        return
    print_line(f"thresher {facts['thresher']}, Python {facts['python']}, {facts['system']}")
    print_line(f"{facts['cores']} cores, {facts['gpu'] or 'no NVIDIA driver found'}")
    print_line(f"cache: {facts['cache']}, {format_bytes(facts['cache_free'])} free; 'thresher cache' shows its content")
    for name, extra in facts["extras"].items():
        if extra["missing"]:
            print_line(f"missing  {name:<11} {extra['use']}: {extra['command']} (lacks {', '.join(extra['missing'])})")
        else:
            print_line(f"ok       {name:<11} {extra['use']}")
    print_line("select, score, curate and cache need none of these if the method uses no model.")


def examine() -> dict[str, Any]:
    """Return what `doctor` shows, as JSON values."""
    from thresher import __version__
    from thresher.features import FeatureCache

    root = Path(FeatureCache().root)
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    extras = {}
    for extra in EXTRAS:
        missing = [name for module, name in extra.packages.items() if importlib.util.find_spec(module) is None]
        installed = {name: _find_version(name) for name in extra.packages.values() if name not in missing}
        extras[extra.name] = {
            "use": extra.use,
            "missing": missing,
            "installed": installed,
            "command": install_command(extra.name),
        }
    return {
        "thresher": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(terse=True),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": "an NVIDIA driver is installed" if shutil.which("nvidia-smi") else None,
        "cache": str(root),
        "cache_free": shutil.disk_usage(there).free,
        "extras": extras,
    }


def describe_missing(module: str, needed_by: str) -> str | None:
    """Return what to install where a module of an extra is missing; None where it is of none.

    Args:
        module: that could not be imported.
        needed_by: the command that needs it.
    """
    for extra in EXTRAS:
        package = extra.packages.get(module.partition(".")[0])
        if package is not None:
            return str(MissingExtraError(package, needed_by, extra.name))
    return None


def _find_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
