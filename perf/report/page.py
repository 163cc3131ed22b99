"""The report: one HTML file that needs nothing else."""

from html import escape

from . import plots
from .ratios import reached, worst_of_families

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; background: #fbfbfa; max-width: 1120px; margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 8px; border-bottom: 1px solid #d9d9d6; padding-bottom: 4px; }
h3 { font-size: 16px; margin: 20px 0 4px; } p { margin: 6px 0; } .quiet { color: #5c5c5c; }
table { border-collapse: collapse; width: 100%; font-size: 14px; } th { text-align: left; font-weight: 600; }
th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid #e8e8e5; vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.reached { color: #00694d; font-weight: 600; } .not.reached { color: #b33c00; } .not.measured { color: #777; font-weight: 400; }
figure { margin: 8px 0 20px; background: #fff; border: 1px solid #e8e8e5; padding: 12px; }
code, pre { font: 12.5px/1.4 ui-monospace, monospace; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 10px 0; } summary { cursor: pointer; }
"""


def page(results):
    """The page of these results."""
    sections = [_head(results), _goals(results), *_plots(results), _all(results), _commands(results)]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Stripewise: performance</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _number(value):
    """With as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(cells, tag="td"):
    """Cells are texts, or pairs of a text and its class."""
    made = ""
    for cell in cells:
        text, kind = cell if isinstance(cell, tuple) else (cell, "")
        made += f'<{tag} class="{kind}">{escape(str(text))}</{tag}>' if kind else f"<{tag}>{escape(str(text))}</{tag}>"
    return f"<tr>{made}</tr>"


def _table(head, rows):
    return f"<table><thead>{_row(head, 'th')}</thead><tbody>{''.join(map(_row, rows))}</tbody></table>"


def _head(results):
    machine, options = results.machine, results.options
    commit = f"{machine.get('commit')}{' and changes that are not committed' if machine.get('changed') else ''}"
    loads = ", ".join(str(load[0]) for load in results.loads)
    facts = [
        ("Processor", machine.get("cpu")),
        ("Cores", f"{machine.get('cores')}; target and engine on {options['cores'][0]}, load on {options['cores'][1]}"),
        ("Kernel", machine.get("kernel")),
        ("Memory", f"{machine.get('memory')}; huge pages {machine.get('hugepages')}"),
        ("TCP", f"congestion control {machine.get('congestion')}"),
        ("Commit", commit),
        ("Compiler", machine.get("rust")),
        ("Rounds", f"{options['rounds']} of {options['seconds']} s for each work; load average at their starts: {loads}"),
    ]
    absent = "".join(f"<p><b>{escape(who)}</b> was not measured: {escape(why)}</p>" for who, why in results.absent.items())
    quick = "<p><b>A quick run: it shows that the bench works, and not how fast anything is.</b></p>"
    return (
        f'<h1>Stripewise: performance</h1>{quick if options.get("quick") else ""}'
        f'<p class="quiet">Medians of all rounds, with the least and the most. Subjects take turns in every round.</p>'
        + "<table>" + "".join(_row((name, value)) for name, value in facts) + "</table>" + absent
    )  # fmt: skip


def _goals(results):
    rows = []
    for row, word in worst_of_families(reached(results)):
        goal, spread = row.goal, row.spread
        median = f"{spread.median:.2f}" if spread else ""
        between = f"{spread.least:.2f} to {spread.most:.2f}" if spread else ""
        sign = "≤" if goal.most else "≥"
        rows.append((goal.title, goal.against, (f"{sign} {goal.reach}", "number"), (median, "number"),
                     (between, "number"), (word, row.word)))  # fmt: skip
    head = ("work", "against", ("goal", "number"), ("median", "number"), ("least to most", "number"), "")
    return "<h2>Ratios to reach</h2>" + _table(head, rows)


def _plots(results):
    subjects = results.subjects()
    groups = [
        ("The engine, in one process", [s for s in subjects if "engine" in s or s.startswith("md")], ["engine"]),
        ("Over NVMe/TCP", [s for s in subjects if "target" in s or s.startswith(("nvmet", "fio"))], ["target"]),
    ]
    for title, group, ours in groups:
        # Policies and bare members have works of their own, and bars below.
        plain = [s for s in group if s in ("engine", "md", "SPDK engine") or "engine" not in s]
        drawn = [
            ("IOPS against depth", plots.iops_against_depth(results, plain)),
            ("Latency percentiles", plots.latencies(results, [s for s in ours if s in group])),
            ("Throughput against the size of a request", plots.throughput_against_size(results, plain)),
            ("CPU time for each I/O", plots.bars(results, _small(results, group, "cpu_us"), "cpu_us", "us of a core", "CPU time")),
        ]
        drawn = [(name, svg) for name, svg in drawn if svg]
        if drawn:
            yield f"<h2>{title}</h2>" + "".join(f"<h3>{name}</h3><figure>{svg}</figure>" for name, svg in drawn)
    comparison = "".join(f"<h3>{escape(work)}</h3><figure>{svg}</figure>" for work, svg in _comparisons(results))
    if comparison:
        yield "<h2>Side by side</h2>" + comparison


def _small(results, subjects, key):
    """Subjects and works of 4 KiB that have this figure; larger ones would leave them no room in a plot."""
    return [(s, w) for s in subjects for w in results.works(s) if "-4k-" in w and results.spread(s, w, key)]


def _comparisons(results):
    """Works that several families have done; cases of parity are many and small, and share a plot."""
    works = {}
    for subject in results.subjects():
        for work in results.works(subject):
            works.setdefault(work, []).append(subject)
    groups = {}
    for work, subjects in works.items():
        if len({plots.colour(subject) for subject in subjects}) > 1:
            heat = work.split("-", 1)[0]
            title = f"Parity, {heat}" if heat in ("hot", "cold") else work
            groups.setdefault(title, []).extend((subject, work) for subject in subjects)
    units = (("iops", "IOPS"), ("gbps", "GB/s of source bytes"), ("mibps", "MiB/s"))
    for title, pairs in groups.items():
        key, unit = next((key, unit) for key, unit in units if any(results.spread(*pair, key) for pair in pairs))
        yield title, plots.bars(results, pairs, key, unit, f"{title}, side by side")


def _all(results):
    head = ("subject", "work", ("speed", "number"), ("least to most", "number"), ("MiB/s", "number"), ("p50 us", "number"),
            ("p99 us", "number"), ("p99.9 us", "number"), ("CPU us", "number"))  # fmt: skip
    rows = []
    for subject in results.subjects():
        for work in results.works(subject):
            speed = results.spread(subject, work)
            others = [results.spread(subject, work, key) for key in ("mibps", "p50", "p99", "p99_9", "cpu_us")]
            figures = [(_number(s.median) if s else "", "number") for s in others]
            between = (f"{_number(speed.least)} to {_number(speed.most)}", "number")
            rows.append((subject, work, (_number(speed.median), "number"), between, *figures))
    unit = "IOPS; GB/s for parity, MiB/s for rebuilds"
    return f"<h2>All figures</h2><p class='quiet'>Speed: {unit}.</p>" + _table(head, rows)


def _commands(results):
    lines = "\n".join(f"{escape(name)}: {escape(command)}" for name, command in results.commands.items())
    return f"<h2>Commands</h2><details><summary>Every command of the first round</summary><pre>{lines}</pre></details>"
