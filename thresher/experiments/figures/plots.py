"""Figures of a curve and of a comparison; the pages of `report` draw their own charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thresher.evaluation.metric import find_unit

Content = Mapping[str, Any]


def plot_curve(content: Content, ax: Any = None) -> Any:
    """Draw the curves of all methods: points with one standard error, 80 % bands, enough rows.

    Args:
        content: of `saturation.json`.
        ax: matplotlib axes to draw on; None for those of a new figure.

    Returns:
        The matplotlib figure.
    """
    ax, unit = _new_axes() if ax is None else ax, content.get("unit", "rows")
    for method, entry in content["methods"].items():
        points = entry["points"]
        x, y, error = ([point[name] for point in points] for name in ("n_rows", "value", "stderr"))
        color = ax.errorbar(x, y, yerr=error, fmt="o-", capsize=2, label=method).lines[0].get_color()
        enough = entry.get("enough")
        end = content["of"] if enough and (enough.get("unlike_laws") or enough.get("worse")) else float("inf")
        band = [place for place in entry.get("band", ()) if None not in place.values() and place["n_rows"] <= end]
        ax.fill_between(
            [place["n_rows"] for place in band],
            [place["low"] for place in band],
            [place["high"] for place in band],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
        if enough and enough["verdict"] == "enough":
            ax.axvspan(enough["low"], enough["high"], color=color, alpha=0.1)
            ax.axvline(enough["rows"], color=color, linestyle=":")
    ax.axvline(content["pool"], color="gray", linestyle="--", linewidth=1, label=f"all {unit}")
    ax.set(
        xscale="log",
        xlabel="training rows" if unit == "rows" else unit,
        ylabel=content["metric"],
        title=content["answer"],
    )
    ax.title.set(wrap=True, fontsize="small")
    sizes = sorted({point["n_rows"] for entry in content["methods"].values() for point in entry["points"]})
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.minorticks_off()
    ax.legend()
    return ax.figure


def plot_comparison(content: Content, ax: Any = None) -> Any:
    """Draw each method's difference to random with its 95 % interval; right is better.

    Rates are drawn in points, and colored where the difference is clear after Holm's correction.

    Args:
        content: of `comparison.json`.
        ax: matplotlib axes to draw on; None for those of a new figure.

    Returns:
        The matplotlib figure.
    """
    ax = _new_axes() if ax is None else ax
    verdicts = content["verdicts"][::-1]
    values = [entry["value"] for entry in content["values"]]
    unit = find_unit(content["metric"], is_higher_better=content["is_higher_better"], values=values)
    for place, verdict in enumerate(verdicts):
        effect = verdict["difference"]
        has_zero = effect["low"] <= 0 <= effect["high"]
        is_clear = verdict["p_holm"] < content["level"] and not has_zero
        color = "gray" if not is_clear else "tab:green" if effect["value"] > 0 else "tab:red"
        ends = [unit.factor * effect["low"], unit.factor * effect["high"]]
        ax.plot(ends, [place, place], color=color)
        ax.plot([unit.factor * effect["value"]], [place], "o", color=color)
    baseline = content.get("baseline", "random")
    # a unit that names the metric says all of it
    measured = unit.name.removeprefix("of ") if unit.name.startswith("of ") else f"{content['metric']}, {unit.name}"
    names = [f"{verdict['method']}, {verdict['n_rows']:,} rows" for verdict in verdicts]
    ax.axvline(0.0, color="gray", linestyle="--", linewidth=1)
    ax.set(yticks=range(len(names)), yticklabels=names, xlabel=f"← worse than {baseline} · {measured} · better →")
    return ax.figure


def _new_axes() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # no window and no global state of pyplot
    return figure.subplots()
