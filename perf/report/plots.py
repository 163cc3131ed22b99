"""Plots as SVG that stands in a page."""

import io
import re

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402  the backend has to be chosen first
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator  # noqa: E402

# One colour for each family of subjects, in all plots: colours that the colour-blind tell apart, too.
FAMILIES = (("SPDK", "#009e73"), ("md", "#d55e00"), ("nvmet", "#cc79a7"), ("ISA-L", "#7f7f7f"), ("fio", "#56b4e9"),
            ("target", "#0072b2"), ("engine", "#0072b2"), ("parity", "#0072b2"))  # fmt: skip
MARKERS = "osD^vPX*"
LATENCIES = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99_9", "p99.9"))

pyplot.rcParams.update({
    "font.size": 10, "axes.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e4e4e4", "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": "none",
    "svg.hashsalt": "stripewise",
})  # fmt: skip


def colour(subject):
    """The colour of a subject's family."""
    return next((colour for name, colour in FAMILIES if subject.startswith(name)), "#444444")


def parts(work):
    """Pattern, size, depth and the rest of a work's name; None if it has no such name."""
    found = re.fullmatch(r"([a-z]+)(\d*)-(\d+[km])-qd(\d+)(x\d+)?(-.*)?", work)
    if not found:
        return None
    rw, reads, size, depth, queues, rest = found.groups()
    return rw + reads, size, int(depth), (queues or "") + (rest or "")


def bytes_of(size):
    """4k is 4096."""
    return int(size[:-1]) << {"k": 10, "m": 20}[size[-1]]


def short(value, _=None):
    """12500 is 12.5k."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _svg(figure, label):
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # As wide as the page lets it be, and no wider than it was drawn.
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="width:100%;max-width:\2pt"', svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _lines(axes, results, series, key=None):
    """Lines of medians with bars from the least to the most. `series` are label, subject and a list of x and work."""
    for number, (label, subject, points) in enumerate(series):
        spreads = [(x, results.spread(subject, work, key)) for x, work in sorted(points)]
        spreads = [(x, spread) for x, spread in spreads if spread]
        if not spreads:
            continue
        middles = [spread.median for _, spread in spreads]
        low = [spread.median - spread.least for _, spread in spreads]
        high = [spread.most - spread.median for _, spread in spreads]
        axes.errorbar([x for x, _ in spreads], middles, yerr=[low, high], label=label, color=colour(subject), capsize=3,
                      marker=MARKERS[number % len(MARKERS)], markersize=5, linewidth=1.6,
                      linestyle="-" if "+" not in subject else "--")  # fmt: skip


def _panels(titles):
    figure, axes = pyplot.subplots(1, len(titles), figsize=(6.6 * len(titles), 4), squeeze=False)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, loc="left", fontweight="bold")
    return figure, axes[0]


def _finish(axis, xlabel, ylabel, ticks, names):
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(ticks, names)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(FuncFormatter(short))
    if axis.get_legend_handles_labels()[0]:
        axis.legend()


def _by(results, subjects, rws, x_of, rest=""):
    """Series of points for each subject and pattern."""
    series = []
    for subject in subjects:
        points = []
        for work in results.works(subject):
            found = parts(work)
            if found and found[0] in rws and found[3] == rest and x_of(found) is not None:
                points.append((x_of(found), work))
        if points:
            series.append((subject, subject, points))
    return series


def iops_against_depth(results, subjects):
    """4 KiB random reads and writes; None if nobody has more than one depth."""
    patterns = [("randread", "4 KiB random read"), ("randwrite", "4 KiB random write")]
    found = [(title, _by(results, subjects, [rw], lambda p: p[2] if p[1] == "4k" else None)) for rw, title in patterns]
    found = [(title, series) for title, series in found if any(len(points) > 1 for *_, points in series)]
    if not found:
        return None
    figure, axes = _panels([title for title, _ in found])
    for axis, (_, series) in zip(axes, found):
        _lines(axis, results, series)
        ticks = sorted({x for *_, points in series for x, _ in points})
        _finish(axis, "depth", "IOPS", ticks, [str(tick) for tick in ticks])
    return _svg(figure, "IOPS against depth")


def throughput_against_size(results, subjects):
    """Sequential reads and writes at the depth that has most sizes."""
    found = []
    for rw, title in (("read", "sequential read"), ("write", "sequential write")):
        depths = {}
        for subject in subjects:
            for work in results.works(subject):
                work_parts = parts(work)
                if work_parts and work_parts[0] == rw and not work_parts[3]:
                    depths.setdefault(work_parts[2], set()).add(work_parts[1])
        if not depths:
            continue
        depth = max(depths, key=lambda d: len(depths[d]))
        series = _by(results, subjects, [rw], lambda p, d=depth: bytes_of(p[1]) if p[2] == d else None)
        if len(depths[depth]) > 1:
            found.append((f"{title}, depth {depth}", series, sorted(depths[depth], key=bytes_of)))
    if not found:
        return None
    figure, axes = _panels([title for title, *_ in found])
    for axis, (_, series, sizes) in zip(axes, found):
        _lines(axis, results, series, "mibps")
        _finish(axis, "size of a request", "MiB/s", [bytes_of(size) for size in sizes], sizes)
    return _svg(figure, "Throughput against size")


def latencies(results, subjects):
    """Percentiles of 4 KiB random reads and writes, a line for each subject and depth."""
    figure, axes = _panels(["4 KiB random read", "4 KiB random write"])
    names = [name for _, name in LATENCIES]
    is_empty = True
    for axis, rw in zip(axes, ("randread", "randwrite")):
        number = 0
        for subject in subjects:
            for work in results.works(subject):
                found = parts(work)
                if not found or found[0] != rw or found[1] != "4k" or found[3] not in ("", "-half"):
                    continue
                spreads = [results.spread(subject, work, key) for key, _ in LATENCIES]
                if not all(spreads):
                    continue
                is_empty = False
                label = f"{subject}, depth {found[2]}{', half of peak' if found[3] else ''}"
                axis.plot(names, [spread.median for spread in spreads], label=label, color=colour(subject),
                          marker=MARKERS[number % len(MARKERS)], markersize=5, linewidth=1.4, alpha=0.9,
                          linestyle="-" if "+" not in subject else "--")  # fmt: skip
                number += 1
        axis.set_yscale("log")
        axis.set(xlabel="percentile", ylabel="microseconds")
        axis.yaxis.set_major_formatter(FuncFormatter(short))
        # Within one power of ten there may be no larger mark with a number.
        low, high = axis.get_ylim()
        axis.yaxis.set_minor_formatter(FuncFormatter(short) if high < 10 * low else NullFormatter())
        if number:
            axis.legend(fontsize=8)
    if is_empty:
        pyplot.close(figure)
        return None
    return _svg(figure, "Latency percentiles")


def bars(results, pairs, key, unit, label):
    """A bar for each subject and work: the median, with the least and the most."""
    rows = [(f"{subject}  {work}", subject, results.spread(subject, work, key)) for subject, work in pairs]
    rows = [row for row in rows if row[2]]
    if not rows:
        return None
    figure, axis = pyplot.subplots(figsize=(11, 0.9 + 0.3 * len(rows)))
    for place, (_, subject, spread) in enumerate(rows):
        error = [[spread.median - spread.least], [spread.most - spread.median]]
        axis.barh(place, spread.median, xerr=error, color=colour(subject), height=0.66, alpha=0.85, capsize=2,
                  error_kw={"linewidth": 0.9})  # fmt: skip
        axis.annotate(f" {short(spread.median)}", (spread.most, place), va="center", fontsize=9)
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.invert_yaxis()
    axis.set_xlabel(unit)
    axis.xaxis.set_major_formatter(FuncFormatter(short))
    axis.grid(axis="y", visible=False)
    return _svg(figure, label)
