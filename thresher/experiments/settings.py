"""What an experiment can be asked: each option with its default, its description and its bounds.

The functions and the commands of `curve`, `compare` and `tune` are made of these classes; the
`...Options` beside them say the same to type checkers, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from thresher.errors import InputError
from thresher.evaluation.curves.enough import Tolerance
from thresher.models.settings import declare_device
from thresher.numeric.units import parse_seconds
from thresher.trainer.engine.adapters.kinds import LOW_RANK
from thresher.trainer.settings import AdapterKind, TrainSettings
from thresher.trainer.tracking.tracker import HELP as TRACKER_HELP
from thresher.trainer.tracking.tracker import parse_trackers
from thresher.trainer.untouched.settings import PANEL as UNTOUCHED_PANEL
from thresher.trainer.untouched.settings import UntouchedOptions, UntouchedSettings
from thresher.validation import build_settings, check_settings, option, parse_pairs

Overlap = Literal["refuse", "drop"]
Equal = Literal["epochs", "steps"]
MethodSettings = Mapping[str, Mapping[str, Any]]

BASELINE = "random"
CELLS, MODEL = "Execution", "Model and metric"
POINTS = "Your own scores"


def parse_train_settings(pairs: Sequence[str]) -> TrainSettings:
    """Return the settings of the training from ["epochs=2", ...].

    Raises:
        SettingsError: there is no such setting, or its value does not fit.
    """
    settings: TrainSettings = build_settings(TrainSettings, "--train", parse_pairs(pairs, "--train", "epochs=2"))
    return settings


def parse_method_settings(pairs: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return {"deft-ucs": {"easy_share": "0.3"}} from ["deft-ucs.easy_share=0.3"].

    Raises:
        InputError: a pair is not METHOD.NAME=VALUE.
    """
    settings: dict[str, dict[str, str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        method, dot, setting = name.partition(".")
        if not (equals and dot and method.strip() and setting.strip()):
            raise InputError(
                f"--set: must be METHOD.NAME=VALUE, got '{pair}'; for example --set deft-ucs.easy_share=0.3"
            )
        settings.setdefault(method.strip(), {})[setting.strip().replace("-", "_")] = value.strip()
    return settings


@dataclass(frozen=True, kw_only=True)
class ExperimentSettings(UntouchedSettings):
    """Options of every experiment."""

    command: ClassVar[str] = "experiment"

    model: str | Path | None = option(
        None,
        "Base model: Hub id or folder, smollm2, tiny or minilm. Default: SmolLM2-135M-Instruct, MiniLM for labels.",
        panel=MODEL,
    )
    metric: Any = option(
        None,
        "accuracy, macro_f1, balanced_accuracy, loss; or loss, exact_match, rouge_l, chrf for language models; or your "
        "own: 'command:PROGRAM' or an entry point of thresher.metrics; or lm-eval:TASK (curve, compare). Default: the "
        "first one.",
        panel=MODEL,
    )
    settings: TrainSettings = option(
        TrainSettings(),
        "Training setting, such as epochs=2.",
        flag="--train",
        is_repeatable=True,
        parse=parse_train_settings,
    )
    device: str | None = declare_device(MODEL)
    overlap: Overlap = option(
        "refuse", "Test rows that are also in the pool: refuse them, or drop them from the pool.", panel=MODEL
    )
    eval_by: str | None = option(
        None, "Column whose groups are held out as a whole if --eval is a share: source, author, ...", panel=MODEL
    )
    workers: int | Literal["auto"] | None = option(
        1, "Cells that run at once; auto: one per core or GPU.", ge=1, panel=CELLS
    )
    engine: Literal["local", "ray"] = option("local", "local, or ray (RAY_ADDRESS).", panel=CELLS)
    general: str | Path = option(
        "none",
        "Rows from outside the task, to measure what each run makes the model forget: a file of texts or of "
        "questions with answers; auto: 300 included ones; none.",
        panel=UNTOUCHED_PANEL,
    )
    report_to: str | None = option(None, TRACKER_HELP, panel=CELLS)
    out: str | Path | None = option(None, "Folder for the result; cells are cached in any case.")
    force: bool = option(False, "Replace an earlier result in --out.")

    def __post_init__(self) -> None:
        """Check every field, and then what they say together.

        Raises:
            SettingsError: a field has an illegal value.
            MissingExtraError: a tracker is not installed.
        """
        check_settings(self, self.command)
        parse_trackers(self.report_to)
        own = self.settings.device
        check_settings(self, self.command, [*self._find_device_problem(), *self.find_problems()])
        # one device for all models, those that are trained and those that choose rows
        object.__setattr__(self, "settings", replace(self.settings, device=self.device or own))
        object.__setattr__(self, "device", self.device or own)

    def _find_device_problem(self) -> list[str]:
        own = self.settings.device
        if None in (own, self.device) or own == self.device:
            return []
        return [f"device is '{self.device}', and '{own}' in train; give one of them"]

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        return []


@dataclass(frozen=True, kw_only=True)
class MethodExperimentSettings(ExperimentSettings):
    """Options of every experiment that chooses rows."""

    method_settings: MethodSettings | None = option(
        None,
        "Setting of a method, such as stratified.by=label.",
        flag="--set",
        is_repeatable=True,
        parse=parse_method_settings,
    )
    target_rows: Any = option(
        None,
        "Rows of the task you train for, for target-aware methods; auto then keeps the rows most similar to them.",
        panel=MODEL,
    )
    encoder: str | None = option(None, "minilm, static, or a sentence-transformers model.", panel=MODEL)
    trainer: str | None = option(
        None,
        "Your own trainer: 'command:python train.py {train} {eval} {out}', which reports the metric as JSON. "
        "{seed} is the number of the run.",
        panel=MODEL,
    )
    trainer_time: float | str = option("1h", "Time limit for one run of --trainer: seconds, or 90s, 30m.", panel=MODEL)

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        if not 0 < parse_seconds(self.trainer_time) < float("inf"):
            return [f"trainer_time must be a time above 0, as 90s, 30m or 4h, got {self.trainer_time!r}"]
        if self.trainer is None:
            return []
        ours = {field.name: field.default for field in fields(UntouchedSettings)} | {"general": "none"}
        changed = [name for name, default in ours.items() if getattr(self, name) != default]
        changed += ["train"] if replace(self.settings, device=None) != TrainSettings() else []
        return [f"with a trainer of your own, {', '.join(changed)} must be left out"] if changed else []


@dataclass(frozen=True, kw_only=True)
class CurveSettings(MethodExperimentSettings):
    """Options of a learning curve."""

    command: ClassVar[str] = "curve"

    methods: tuple[str, ...] | None = option(
        None,
        "Methods; random is always included. Default: prototypes for rows with labels, otherwise random rows alone.",
    )
    sizes: tuple[int, ...] | Literal["auto"] = option(
        "auto", "auto (doubling), or numbers of rows: 100,200,400; the whole pool is always included.", ge=1
    )
    seeds: int = option(5, "Runs at each size; the maximum in adaptive mode.", ge=2)
    grid: bool = option(False, "Run every size with every seed, not only those that improve the answer.")
    within: float | str = option(
        "1%",
        "How much worse than with all rows the score may be: 1% (one point of accuracy, or 1% of a loss), or 0.02 "
        "in units of the metric.",
    )
    max_rows: int | None = option(None, "Largest size to run, if the whole pool would cost too much.", ge=1)
    targets: tuple[float, ...] = option(
        (), "Target score: how many rows does it need?", gt=0, flag="--target", is_repeatable=True
    )
    more: tuple[int, ...] = option((), "Additional rows: how much would this many more add?", ge=1, is_repeatable=True)
    axis: str | None = option(
        None, "Column of groups: how many sources, languages or tasks are enough, at --max-rows rows each time."
    )
    ranks: tuple[int, ...] | None = option(
        None, "Adapter ranks, to compare a larger rank with more rows: 4,16,64.", ge=1
    )
    models: tuple[str, ...] | None = option(None, "Base models, to compare a larger model with more rows: a,b,c.")
    equal: Equal = option("epochs", "What is held equal for all sizes.")
    max_time: float | str | None = option(None, "Start no run after this time: seconds, or 90s, 30m, 4h.")
    max_runs: int | None = option(None, "Maximum number of runs, including reused ones.", ge=1)
    slices: tuple[str, ...] = option(
        (), "Column of the test set for separate curves, besides the label.", flag="--slice", is_repeatable=True
    )
    points: Any = option(
        None,
        "Scores you have already measured, instead of rows: a table with one line per run; nothing is trained.",
        flag="--from",
        panel=POINTS,
    )
    point_columns: Any = option(
        None,
        "Columns of --from, if they cannot be guessed: rows=n_train,score=f1; seed and arm are optional.",
        panel=POINTS,
    )
    lower_is_better: bool = option(False, "The score of --from is a loss.", flag="--lower-is-better", panel=POINTS)
    pool_rows: int | None = option(None, "Number of rows in your pool, if --from covers fewer.", ge=1, panel=POINTS)

    @property
    def tolerance(self) -> Tolerance:
        """`within` as a number; its amount is 0 where it is none."""
        text, sign, _ = str(self.within).strip().partition("%")
        try:
            return Tolerance(float(text) / 100, is_share=True) if sign else Tolerance(float(text), is_share=False)
        except ValueError:
            return Tolerance(0.0)

    @property
    def max_seconds(self) -> float | None:
        """`max_time` in seconds."""
        return None if self.max_time is None else parse_seconds(self.max_time)

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        problems = super().find_problems()
        if self.trainer is not None and (self.ranks or self.models or self.equal == "steps"):
            problems.append("ranks, models and equal=steps are of our trainer; leave them or trainer out")
        if not 0 < self.tolerance.amount < (1 if self.tolerance.is_share else float("inf")):
            problems.append(
                f"within must be a number above 0 or a share below 100%, as 0.02 or 1%, got {self.within!r}"
            )
        if self.max_time is not None and not 0 < parse_seconds(self.max_time) < float("inf"):
            problems.append(f"max_time must be a time above 0, such as 90s, 30m or 4h, got {self.max_time!r}")
        if self.axis is not None and (self.ranks or self.models or set(self.methods or ()) - {BASELINE}):
            problems.append("axis draws random groups; leave out ranks, models, and all methods but random")
        if self.points is None and (self.point_columns is not None or self.lower_is_better or self.pool_rows):
            problems.append("point_columns, lower_is_better and pool_rows are of --from; give it, or leave them out")
        if self.ranks and self.models:
            problems.append("ranks and models are two second factors; give one of them")
        return problems


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(MethodExperimentSettings):
    """Options of a comparison of methods with random."""

    command: ClassVar[str] = "compare"

    methods: tuple[str, ...] | Literal["all"] = option(
        "all",
        "Methods, with settings and quotas such as 'facility-location quota=label=sqrt'; a TOML file with a table "
        "[[methods]] for each; or all (those that need no language model and whose columns exist). random and "
        "length are always included; random#2 is a second random.",
    )
    budget: tuple[str | int | float, ...] = option(("10%",), "Rows or a share, one or several: 10% or 500,1000.")
    seeds: int = option(5, "Runs of each method at each budget; their variance gives the error bar.", ge=2)
    redraw: float = option(
        0.8,
        "Share of the pool that each seed samples to select from, so that the verdict is about the method and not "
        "about one of its subsets; 1: all seeds select from the whole pool.",
        gt=0,
        le=1,
    )
    detect: float = option(
        0.01, "True difference for which to report the number of seeds needed, in units of the metric.", gt=0, lt=1
    )
    equal: Equal = option("steps", "What is held equal for all methods.")


@dataclass(frozen=True, kw_only=True)
class TuneSettings(ExperimentSettings):
    """Options of a search for training settings."""

    command: ClassVar[str] = "tune"

    trials: int = option(20, "Number of settings to try; the first are the defaults.", ge=2)
    finalists: int = option(5, "Number of trials, best by early score, that run to the end.", ge=1)
    checks: int = option(
        3, "Additional random trials that run to the end, to check how reliable early scores are.", ge=0
    )
    seeds: int = option(3, "Runs of the winner and of the default settings, scored on the test rows.", ge=2)
    average: int = option(0, "Finalists to average into one adapter, compared with the winner; 0: none.", ge=0)
    dev: str | float = option("15%", "Share of the data held out to judge trials.")
    adapters: tuple[AdapterKind, ...] = option(
        (), "Kinds of adapters to search over, such as lora,pissa,loraplus; default: the one in --train, or lora."
    )
    sampler: Literal["tpe", "gp"] = option("tpe", "Parzen estimator or Gaussian process.")
    seed: int = option(0, "Random seed of the search.")

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        n_ends = self.finalists + self.checks + 1
        others = sorted(set(self.adapters) - set(LOW_RANK))
        if self.average and others:
            return [f"average needs adapters that are low-rank products, got {', '.join(others)}; leave these out"]
        if self.average in (0, *range(2, n_ends + 1)):
            return []
        return [f"average must be 0 or between 2 and the {n_ends} trials that run to the end, got {self.average!r}"]


class ExperimentOptions(UntouchedOptions, total=False):
    """`ExperimentSettings`, for type checkers."""

    model: str | Path | None
    metric: Any
    settings: TrainSettings
    device: str | None
    overlap: Overlap
    eval_by: str | None
    workers: int | Literal["auto"] | None
    engine: Literal["local", "ray"]
    report_to: str | None
    out: str | Path | None
    force: bool


class MethodExperimentOptions(ExperimentOptions, total=False):
    """`MethodExperimentSettings`, for type checkers."""

    method_settings: MethodSettings | None
    target_rows: Any
    encoder: str | None
    trainer: str | None
    trainer_time: float | str


class CurveOptions(MethodExperimentOptions, total=False):
    """`CurveSettings`, for type checkers: texts with commas are lists."""

    methods: Any  # names, selectors, functions (`selectors.registry.Method`), one or several
    sizes: Literal["auto"] | Sequence[int]
    seeds: int
    grid: bool
    within: float | str
    max_rows: int | None
    targets: Sequence[float]
    more: Sequence[int]
    axis: str | None
    ranks: Sequence[int] | None
    models: Sequence[str] | None
    equal: Equal
    max_time: float | str | None
    max_runs: int | None
    slices: Sequence[str]
    points: Any
    point_columns: Any
    lower_is_better: bool
    pool_rows: int | None


class ComparisonOptions(MethodExperimentOptions, total=False):
    """`ComparisonSettings`, for type checkers: texts with commas are lists."""

    methods: Any  # names, selectors, functions (`selectors.registry.Method`), one or several
    budget: str | int | float | Sequence[str | int | float]
    seeds: int
    redraw: float
    detect: float
    equal: Equal


class TuneOptions(ExperimentOptions, total=False):
    """`TuneSettings`, for type checkers."""

    trials: int
    finalists: int
    checks: int
    seeds: int
    average: int
    dev: str | float
    adapters: Sequence[AdapterKind]
    sampler: Literal["tpe", "gp"]
    seed: int
