#!/usr/bin/env python3
"""Write tests/bench/RESULTS.md and its plots from what bench.py and peers.py wrote:
`make bench-report`."""
import argparse
import json
import pathlib

import bodies
import plot
import report

HEAD = """# Results

What `make bench` and `make bench-peers` measured; `make bench-report` wrote this page, the last two
sections from notes.md. Within one table all that is compared was measured by turns in one run;
figures are the best of the rounds, since what disturbs a measurement only makes it worse.

"""


def compress_rows_of(size):
    """Whether a row of the kernels' tables is compress by that model in float32."""
    return lambda row: (row["op"] == "compress" and row["precision"] == "f32" and
                        row["shape"] == f"d={size['d']} n={size['n']}")


def rows_plot(data, peers, size):
    """Throughput against rows: arithmetic, so that it can stand beside the processor's peak. All of
    one run: the one with the others, if there is one."""
    wanted = compress_rows_of(size)
    if peers:
        rows = [{**row, "seconds": {"nsad": row["nsad_s"], **row["peers"]}}
                for row in peers["kernels"] if wanted(row)]
    else:
        rows = [{**row, "seconds": {"nsad": row["seconds"]}, "peak": row["limit"]}
                for row in data["kernels"] if wanted(row) and row["limited_by"] == "f32 peak"]
    series = []
    for color, name in enumerate(("nsad", *report.PEERS)):
        points = [(row["rows"],
                   bodies.compress_flop(size, row["rows"]) / row["seconds"][name] / 1e9)
                  for row in rows if name in row["seconds"]]
        if points:
            series.append(plot.Series(name, points, color))
    series.append(plot.Series("peak", [(row["rows"], row["peak"] / 1e9) for row in rows], 4, True,
                              False))
    labels = (f"compress, d={size['d']} n={size['n']}, float32, one thread", "rows", "GFLOP/s")
    return plot.chart(labels, series, [row["rows"] for row in rows], y_log=False)


def load_plot(data, label):
    """Latency against load: each mark is a number of clients that wait for their answers."""
    points = [point for point in data["load"] if point["shape"] == label]
    series = []
    for color, name, legend in ((0, "nsad", "nsad"), (1, "bare", "bare libmicrohttpd")):
        for percentile, dashed in (("p50", False), ("p99", True)):
            series.append(plot.Series(
                f"{legend} {percentile}",
                [(point["connections"], point[name][f"{percentile}_us"]) for point in points],
                color, dashed))
    labels = (f"compress over HTTP, {label}, raw", "clients", "latency, us")
    return plot.chart(labels, series, [point["connections"] for point in points], y_log=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bench", type=pathlib.Path)
    parser.add_argument("peers", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    options = parser.parse_args()
    data = json.loads(options.bench.read_text())
    peers = json.loads(options.peers.read_text()) if options.peers.exists() else None
    if peers and peers["quick"] != data["quick"]:
        parser.error("expected two quick runs, or two that are not")
    large = bodies.QUICK_LARGE if data["quick"] else bodies.LARGE
    plots = {"rows-small": rows_plot(data, peers, bodies.SMALL),
             "rows-large": rows_plot(data, peers, large)}
    for label in dict.fromkeys(point["shape"] for point in data["load"]):
        plots[f"load-{label.replace(' ', '-')}"] = load_plot(data, label)
    folder = options.folder / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        (folder / f"{name}.svg").write_text(svg)
    images = "## Plots\n\n" + "\n".join(f"![{name}](plots/{name}.svg)\n" for name in plots)
    notes = (pathlib.Path(__file__).parent / "notes.md").read_text()
    parts = [report.bench_markdown(data), report.peers_markdown(peers) if peers else "", images,
             notes]
    (options.folder / "RESULTS.md").write_text(HEAD + "\n".join(part for part in parts if part))


if __name__ == "__main__":
    main()
