"""Labels, a teacher's labels, or written rows: what the same money is best spent on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.result import Result, open_folder
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_json
from thresher.errors import InputError, SettingsError, did_you_mean, first_three
from thresher.evaluation.curves.curve_fit import CurveFit, fit_curve
from thresher.evaluation.curves.spending import Crossing, Kind, Offer, compare_kinds, find_crossings
from thresher.experiments.curve import LearningCurve
from thresher.experiments.curve_io import read_curve
from thresher.numeric.units import format_count

KIND, CONTENT, RECIPE = "label-budget", "budget.json", "label-budget-2"
RANDOM = "random"


@dataclass(frozen=True, kw_only=True, repr=False)
class LabelBudget(Result):
    """What to spend money on.

    Attributes:
        content: `answer`, `offers` (one per amount), `crossings`, `kinds`, `notes`.
        manifest: what ran.
        path: of the folder, or None.
    """

    content: Mapping[str, Any]
    manifest: Manifest
    path: Path | None = None

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and one line per amount."""
        return [("answer", str(self.content["answer"])), *describe_offers(self.content)]

    def write_files(self, folder: Path) -> None:
        """Write `budget.json` and the manifest."""
        write_atomic(folder / CONTENT, encode_record(dict(self.content)))
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    @staticmethod
    def read(folder: str | Path) -> LabelBudget:
        """Read what `label_budget` wrote.

        Raises:
            ManifestError: the folder is not one, or is damaged.
        """
        path, manifest = open_folder(folder, KIND, "a folder that 'label budget' wrote")
        return LabelBudget(content=read_json(path / CONTENT), manifest=manifest, path=path)


def label_budget(
    curves: Mapping[str, Any],
    *,
    price: Mapping[str, float],
    money: Sequence[float],
    fixed: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> LabelBudget:
    """Say which kind of rows is best for a given amount of money, and where that changes.

    Each kind has a learning curve on the same test rows, a price per row, and perhaps a fixed cost.
    Curves are sampled from the laws that the measured points allow; each sample has its best kind.

    Source: the question is that of Kang et al. 2023, arXiv:2305.01645 (distill or annotate); the
    laws are those of `curve`. Fails: below half and beyond twice the rows that were measured a law
    is a guess: such offers are marked, and no change of the best kind is looked for below; curves
    on different test rows are not comparable.

    Args:
        curves: name of the kind -> what `learning_curve` returned or its folder (FOLDER#METHOD for
            another method than random rows), or a table (.csv, .jsonl, or rows) of `rows`, `value`
            and perhaps `seed`, with values from 0 to 1, of which higher is better.
        price: name -> price of a row.
        money: amounts.
        fixed: name -> what is spent before the first row; default: nothing.
        out: folder to write the result to.
        force: replace an earlier result in `out`.

    Raises:
        InputError: a curve cannot be read, or has too few runs.
        SettingsError: a price is missing or illegal.
        OutputError: `out` holds something else.
    """
    amounts = list(dict.fromkeys(map(float, money)))
    _check(curves, price, fixed or {}, amounts)
    amounts.sort()
    kinds = [
        Kind(name=name, fit=_read_fit(name, given), price=float(price[name]), fixed=float((fixed or {}).get(name, 0)))
        for name, given in curves.items()
    ]
    if len({kind.fit.scale.is_higher_better for kind in kinds}) > 1:
        raise InputError(
            "label budget: the curves must be of one metric, found some in which higher is better, some not"
        )
    offers = [compare_kinds(kinds, amount) for amount in amounts]
    # below half of the rows that a kind was measured at, its curve is a guess
    low = max(kind.fixed + kind.price * max(1.0, kind.fit.sizes[0] / 2) for kind in kinds)
    crossings = find_crossings(kinds, low, amounts[-1]) if low < amounts[-1] else []
    content = {
        "answer": write_answer(offers, crossings),
        "offers": [offer.to_json() for offer in offers],
        "crossings": [crossing.to_json() for crossing in crossings],
        "kinds": {kind.name: _describe_kind(kind) for kind in kinds},
        "is_rate": all(kind.fit.scale.is_rate for kind in kinds),
    }
    manifest = Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": digest(
                {"recipe": RECIPE, "kinds": content["kinds"], "money": amounts, "thresher": versions(())}
            ),
            "money": amounts,
            "versions": versions(("numpy",)),
            "run": {},
        }
    )
    result = LabelBudget(content=content, manifest=manifest)
    if out is None:
        return result
    with OutputFolder(out, identity=manifest.identity, force=force) as folder:
        if not folder.is_done:
            folder.publish_files(result.write_files)
    return LabelBudget.read(folder.path)


def write_answer(offers: Sequence[Offer], crossings: Sequence[Crossing]) -> str:
    """Return the answer in a sentence or two."""
    last = offers[-1]
    if last.best is None:
        return f"{last.money:,.2f} buys no row of any kind"
    sure = "" if last.is_sure else f" ({100 * last.chance[last.best]:.0f} % likely to be the best kind)"
    answer = f"for {last.money:,.2f}, buy {format_count(last.rows[last.best], 'row')} of '{last.best}'{sure}"
    for crossing in crossings:
        at = crossing.money
        if at.median == float("inf"):
            answer += f"; whether {crossing.after} overtakes {crossing.before} cannot be told"
            continue
        ends = f"[{_format_money(at.low)}, {_format_money(at.high)}] (80 % interval)"
        answer += f"; above about {_format_money(at.median)} {ends}, {crossing.after} beats {crossing.before}"
    return answer


def describe_offers(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what each amount buys, as (amount, text)."""
    lines = []
    for offer in content["offers"]:
        parts = []
        for name, score in offer["score"].items():
            value = [100 * v if content["is_rate"] else v for v in (score["median"], score["low"], score["high"])]
            parts.append(
                f"{name} {offer['rows'][name]:,} rows: {value[0]:.1f} [{value[1]:.1f}, {value[2]:.1f}] "
                f"(80 % interval), "
                f"{100 * offer['chance'][name]:.0f} % likely to be the best"
            )
        beyond = "".join(f"; {name}: outside half to twice the measured rows" for name in offer["is_beyond"])
        advice = f"; {offer['advice']}" if offer["advice"] else ""
        lines.append((f"{offer['money']:,.2f}", "; ".join(parts or ["buys no row"]) + beyond + advice))
    return lines


def _format_money(value: float) -> str:
    return "never" if value == float("inf") else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _describe_kind(kind: Kind) -> dict[str, Any]:
    fit = kind.fit
    points = {"rows": fit.sizes.tolist(), "errors": fit.errors.tolist(), "seeds": fit.n_seeds.tolist()}
    return {"price": kind.price, "fixed": kind.fixed, **points, "weights": dict(fit.weights)}


def _check(
    curves: Mapping[str, Any], price: Mapping[str, float], fixed: Mapping[str, float], money: Sequence[float]
) -> None:
    """Refuse prices that are missing, of nobody, or illegal.

    Raises:
        SettingsError: there is such a price, or no amount of money.
    """
    if not curves:
        raise SettingsError("label budget: at least one curve is required, found none; give --curve NAME=FOLDER")
    for what, prices in (("price", price), ("fixed", fixed)):
        for name, value in prices.items():
            if name not in curves:
                raise SettingsError(
                    f"label budget: {what} of '{name}': no such curve{did_you_mean(name, list(curves))}"
                )
            if not (value > 0 or (what == "fixed" and value == 0)) or value == float("inf"):
                raise SettingsError(f"label budget: {what} of '{name}' must be a number above 0, got {value}")
    missing = [name for name in curves if name not in price]
    if missing:
        raise SettingsError(f"label budget: a price per row is required, found none of {first_three(missing)}")
    illegal = [f"{amount:g}" for amount in money if not 0 < amount < float("inf")]
    if illegal or not money:
        raise SettingsError(
            f"label budget: amounts of money above 0 are required, got {first_three(illegal) or 'none'}"
        )


def _read_fit(name: str, given: Any) -> CurveFit:
    """Return the law behind a curve.

    Raises:
        InputError: there is none.
    """
    if isinstance(given, CurveFit):
        return given
    if isinstance(given, LearningCurve):
        return _take_method(name, given, None)
    if isinstance(given, str | Path):
        place, _, method = str(given).partition("#")
        folder = str(expand_path(localize(place)))
        if Path(folder).is_dir():
            return _take_method(name, read_curve(folder), method or None)
        if not Path(folder).is_file():
            raise InputError(
                f"label budget: the curve of '{name}' must be a folder or a table, found nothing at {place}"
            )
        try:
            rows = pl.read_csv(folder) if folder.endswith(".csv") else pl.read_ndjson(folder)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"label budget: the curve of '{name}' must be CSV or JSON lines with rows and value, "
                f"found '{reason}' in {place}"
            ) from None
    else:
        rows = pl.DataFrame(given)
    return _fit_table(name, rows)


def _take_method(name: str, curve: LearningCurve, method: str | None) -> CurveFit:
    fits = curve.fits
    chosen = method or (RANDOM if RANDOM in fits else next(iter(fits), None))
    if chosen is None or chosen not in fits:
        raise InputError(
            f"label budget: the curve of '{name}' must have a law of {chosen or 'a method'}, found "
            f"{first_three(list(fits)) or 'none'}; run more sizes or seeds"
        )
    return fits[chosen]


def _fit_table(name: str, rows: pl.DataFrame) -> CurveFit:
    if not {"rows", "value"} <= set(rows.columns):
        raise InputError(
            f"label budget: the table of '{name}' needs the columns rows and value, found {first_three(rows.columns)}"
        )
    points = rows.select(pl.col("rows", "value").cast(pl.Float64, strict=False))
    for column, most, form in (("rows", float("inf"), "a number above 0"), ("value", 1.0, "a share from 0 to 1")):
        is_legal = pl.col(column).is_finite() & pl.col(column).is_between(
            0, most, closed="right" if most > 1 else "both"
        )
        bad = rows.filter(~points.select(is_legal.fill_null(value=False)).to_series())
        if len(bad):
            raise InputError(
                f"label budget: the table of '{name}' must have {form} in '{column}', found {bad[column][0]!r} in "
                f"{len(bad):,} of {len(rows):,} lines; percent and losses must be turned into shares that grow"
            )
    groups = points.group_by("rows").agg("value").sort("rows")
    return fit_curve(groups["rows"].to_list(), groups["value"].to_list(), is_higher_better=True)
