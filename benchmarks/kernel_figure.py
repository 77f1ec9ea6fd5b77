"""How the results of `kernels.py` are shown: lines on the terminal, and a figure."""

from __future__ import annotations


def plot(rows, path, peers, data):
    """Draw time and memory over n, log-log, one line per peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 8), sharex=True, constrained_layout=True)
    for column, kind in enumerate(("kernel", "embeddings")):
        shown = [row for row in rows if row["part"] == "dense" and row["kind"] == kind and row["data"] == data]
        for line, (what, unit) in enumerate((("median_s", "seconds"), ("peak_bytes", "peak bytes beyond the arrays"))):
            axis = axes[line, column]
            for peer in peers:
                points = [(row["n"], row["peers"][peer][what]) for row in shown if what in row["peers"][peer]]
                points = [(n, value) for n, value in points if value > 0]
                if points:
                    axis.plot(*zip(*points, strict=True), marker="o", label=peer)
            axis.set(xscale="log", yscale="log", ylabel=unit, title=f"{kind} given" if line == 0 else "")
            axis.grid(visible=True, which="both", alpha=0.3)
            if line == 1:
                axis.set_xlabel("rows")
    axes[0, 0].legend()
    figure.suptitle("Facility location, 10 % of the rows picked, gaussian 384-dimensional rows")
    figure.savefig(path, dpi=120)


def print_row(row):
    """Print what every peer took."""
    print(f"{row['part']}, {row['data']}, {row['kind']} given, n = {row['n']:,}, k = {row['k']:,}")
    for peer, entry in row["peers"].items():
        if "skipped" in entry:
            print(f"  {peer:13s} skipped: {entry['skipped']}")
            continue
        share = entry.get("objective_share", entry.get("share_of_exact_objective"))
        print(
            f"  {peer:13s} {entry['median_s']:9.4f} s {entry.get('times_thresher', 1):7.1f} x   "
            f"{entry['peak_bytes'] / 1e6:8.0f} MB   equal picks {entry.get('picks_equal_to_exact')}   distinct "
            f"{entry['n_distinct_picks']}   objective {share}",
            flush=True,
        )
