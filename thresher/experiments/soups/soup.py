"""Do adapters of several data sets, merged, beat the best of them?

    OUT/adapter      the soup that is best on the dev rows, or the best single adapter (peft folder)
    OUT/soup.json    scores of adapters and soups on dev and test rows, verdicts

Each way to merge makes a greedy soup (Wortsman et al. 2022, arXiv:2203.05482, algorithm 1):
adapters join in the order of their dev scores, where the soup does not get worse on the dev rows.
The test rows decide nothing; on them each soup is compared with the adapter that is best on the dev
rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, copy_folder, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import Result
from thresher.artifacts.seal import encode_record
from thresher.dataset import Dataset
from thresher.dataset.provenance import list_source_paths
from thresher.errors import InputError
from thresher.evaluation.gain import Gain, estimate_gain, format_gain
from thresher.evaluation.metric import METRICS, Unit, find_unit
from thresher.experiments.adapter_averaging import choose_greedily
from thresher.experiments.result_folder import RunClock, read_result
from thresher.experiments.soups.inputs import load_call
from thresher.experiments.soups.settings import SoupOptions, SoupSettings
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress, report_done
from thresher.trainer.adapter import Adapter
from thresher.trainer.context import PACKAGES, RunContext, content_hash
from thresher.trainer.deployment.settings import PredictOptions, PredictSettings
from thresher.trainer.untouched.summary import name_verdict
from thresher.validation import build_settings, document_options

KIND, RESULT, ADAPTER = "soup", "soup.json", "adapter"
SINGLE = "the best single adapter"
AGAIN = "merge the adapters again"
RECIPE = "soup-5"  # raise it when the same adapters would be merged or judged otherwise


@dataclass(frozen=True, kw_only=True, repr=False)
class Soup(Result):
    """Merged adapters beside the best single one.

    Attributes:
        content: of `soup.json`.
        path: of the folder, or None when none was asked for.
        manifest: what ran.
    """

    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and the verdict on each soup."""
        soups = [(f"soup by {each['way']}", each["verdict"]) for each in self.content["soups"]]
        return [("answer", self.content["answer"]), *soups]

    @document_options(PredictSettings)
    def predict(self, texts: str | Sequence[str], **options: Unpack[PredictOptions]) -> pl.DataFrame:
        """Return what the merged adapter makes of texts, as `Adapter.predict` does.

        Args:
            texts: to classify, to answer or to continue.
            options: fields of `PredictSettings`.

        Raises:
            InputError: there is no folder, or no text, or a model cannot read one.
            ManifestError: a file of the adapter is damaged or missing.
        """
        from thresher.trainer.deployment.predict import predict_routed

        if self.path is None:
            raise InputError("soup: only one with a folder can be tried; give out")
        adapter = self.path / ADAPTER
        return predict_routed(
            self.content,
            texts,
            options,
            what="soup",
            route=lambda own: [adapter] * len(own),
            sealed=self.path,
            again=AGAIN,
        )


@document_options(SoupSettings)
def soup(
    adapters: Sequence[str | Path],
    *,
    dev: Any,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[SoupOptions],
) -> Soup:
    """Merge adapters of one base that learned different rows, and compare with the best of them.

    Args:
        adapters: folders that `train` wrote, two or more.
        dev: rows that decide which adapters join (anything `load` accepts).
        eval: rows that soups are compared on; none of them may be a dev row.
        on_progress: called with a Progress after each measurement.
        options: fields of `SoupSettings`.

    Raises:
        InputError: the adapters cannot be merged, or rows do not fit.
        ManifestError: a folder is not one that `train` wrote.
        SettingsError: a kind of adapter has no low-rank matrices.
        OutputError: `out` holds something else.
    """
    settings = build_settings(SoupSettings, "soup", options)
    trained, contexts, learned = load_call(adapters, dev, eval, settings)
    about = {name: value for name, value in vars(settings).items() if name not in ("data", "out", "force", "device")}
    about["density"] = settings.kept_share
    if learned:
        about["data"] = [content_hash(rows) for rows in learned]
    asked = {"recipe": RECIPE, "soup": about, "adapters": [each.manifest.hash for each in trained]}
    identity = digest({**asked, "runs": [context.identity() for context in contexts.values()]})
    with (
        nullcontext()
        if settings.out is None
        else OutputFolder(settings.out, identity=identity, force=settings.force) as folder
    ):
        if folder is not None and folder.is_done:
            report_done(on_progress, stage="soup", folder=folder.path, outcome="read back")
        else:
            clock = RunClock()
            with tempfile.TemporaryDirectory() as work:
                content, best = _SoupRun(trained, learned, contexts, settings, Path(work), on_progress).run()
                head = {"format": FORMAT, "kind": KIND, "identity": identity, "settings": about}
                places = {"adapters": [str(each.path) for each in trained]}
                places |= {
                    "dev": list_source_paths(contexts["dev"].data),
                    "eval": list_source_paths(contexts["test"].data),
                }
                places |= {"data": [",".join(list_source_paths(rows)) for rows in learned]}
                manifest = Manifest({**head, "versions": versions(PACKAGES), "run": {**clock.to_json(), **places}})
                if folder is None:
                    return Soup(content=content, path=None, manifest=manifest)
                copy_folder(best, folder.work / ADAPTER)
            write_atomic(folder.work / RESULT, encode_record(content))
            write_atomic(folder.work / MANIFEST, manifest.to_json())
            folder.publish()
        return read_soup(folder.path)


@dataclass(frozen=True)
class _SoupRun:
    """What one call merges and measures."""

    trained: Sequence[Adapter]
    learned: Sequence[Dataset]
    contexts: Mapping[str, RunContext]
    settings: SoupSettings
    work: Path
    on_progress: OnProgress | None
    inputs: dict[int, dict[str, Any]] = field(default_factory=dict)

    def run(self) -> tuple[dict[str, Any], Path]:
        """Return the content of `soup.json`, and the folder that is best on the dev rows."""
        metric = next(iter(METRICS[self.contexts["dev"].task].values()))
        sign, unit = (1.0 if metric.is_higher_better else -1.0), find_unit(metric.name)
        folders = [each.path for each in self.trained]
        ways = ", ".join(self.settings.ways)
        n_dev, n_test = (len(each.split.held_out or ()) for each in self.contexts.values())
        self._tell(
            f"plan: measure {len(folders)} adapters on {format_count(n_dev, 'dev row')}, merge them by {ways}, and "
            f"compare on {format_count(n_test, 'test row')}"
        )
        dev = []
        for folder in folders:
            dev.append(metric.measure(self._measure("dev", folder)).value)
            self._tell(f"{folder}: {metric.name} {dev[-1]:.4f} on the dev rows")
        order = sorted(range(len(folders)), key=lambda number: (-sign * dev[number], number))
        single = self._measure("test", folders[order[0]])
        soups, best = [], (sign * dev[order[0]], folders[order[0]], SINGLE)
        for way in self.settings.ways:
            made: dict[tuple[int, ...], float] = {(order[0],): sign * dev[order[0]]}

            def measure(members: Sequence[int], way: str = way, made: dict[tuple[int, ...], float] = made) -> float:
                key = tuple(members)
                if key not in made:
                    made[key] = sign * metric.measure(self._measure("dev", self._merge(key, way))).value
                    names = ", ".join(str(number + 1) for number in key)
                    self._tell(f"soup by {way} of adapters {names}: {sign * made[key]:.4f} on the dev rows")
                return made[key]

            members = choose_greedily(order, measure)
            entry: dict[str, Any] = {"way": way, "members": members, "dev": sign * made[tuple(members)]}
            if len(members) == 1:
                soups.append({**entry, "test": None, "gain": None, "verdict": "no adapter joins the best single one"})
                continue
            table = self._measure("test", self._merge(tuple(members), way))
            gain = estimate_gain(metric, [table], [single], n_tests=len(self.settings.ways))
            said = None if gain is None else _describe_gain(gain, unit)
            entry |= {"test": metric.measure(table).value, "gain": None if gain is None else gain.to_json()}
            soups.append({**entry, "verdict": said or "not measured"})
            if made[tuple(members)] > best[0]:
                best = (made[tuple(members)], self._merge(tuple(members), way), f"the soup by {way}")
        content = {
            "metric": metric.name,
            "trained": {name: self.trained[0].metrics[name] for name in ("model", "task", "labels", "settings")},
            "adapters": [{"path": str(folder), "dev": value} for folder, value in zip(folders, dev, strict=True)],
            "best_single": {"adapter": order[0], "test": metric.measure(single).value},
            "soups": soups,
            "kept": best[2],
            "answer": f"{_describe_kept(best[2], folders[order[0]])}; {_summarize(soups)}",
        }
        return content, best[1]

    def _tell(self, note: str) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(stage="soup", done=0, total=1, note=note))

    def _merge(self, members: tuple[int, ...], way: str) -> Path:
        from thresher.trainer.engine.adapters.merging import WAYS, merge_adapters

        out = self.work / "-".join([way, *map(str, members)])
        if not out.exists():
            settings, folders = self.settings, [self.trained[number].path for number in members]
            known = next(each for each in WAYS if each == way)
            moments = [self._read_inputs(number) for number in members] if known == "regmean" else None
            merge_adapters(folders, out, way=known, density=settings.kept_share, seed=settings.seed, moments=moments)
        return out

    def _read_inputs(self, number: int) -> dict[str, Any]:
        """Return the second moments of what the layers of an adapter read of its own rows."""
        from thresher.trainer.engine.adapters.starts import measure_inputs
        from thresher.trainer.engine.fit import load_trained_model
        from thresher.trainer.runs import tokenize_rows

        if number not in self.inputs:
            each, context = self.trained[number], self.contexts["dev"]
            model = load_trained_model(context, each.path).to(context.accelerator.device)
            rows = tokenize_rows(context, self.learned[number]).rows
            self.inputs[number] = measure_inputs(model, rows, context.accelerator.device)
        return self.inputs[number]

    def _measure(self, side: str, folder: Path) -> pl.DataFrame:
        from thresher.trainer.runs import measure_adapter

        return measure_adapter(self.contexts[side], folder)


def _describe_kept(kept: str, single: Path) -> str:
    """Return what is best on the dev rows."""
    if kept == SINGLE:
        return f"no soup is better on the dev rows than the best single adapter, {single}"
    return f"{kept} is best on the dev rows"


def _describe_gain(gain: Gain, unit: Unit) -> str:
    """Return the verdict, with its size and the number of test rows."""
    verdict = name_verdict(gain) if gain.direction else "no clear difference"
    return f"{verdict}: {format_gain(gain, unit)} (n = {gain.n:,})"


def _summarize(soups: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdicts on the test rows."""
    return "; ".join(
        f"{each['way']}: {each['verdict']}"
        if each["test"] is None
        else f"{each['way']} against the best single adapter on the test rows: {each['verdict']}"
        for each in soups
    )


def read_soup(path: str | Path) -> Soup:
    """Read the folder of `soup`.

    Raises:
        ManifestError: the folder is not one that `soup` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a soup", RESULT)
    return Soup(content=content, path=folder, manifest=manifest)
