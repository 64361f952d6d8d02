#!/usr/bin/env python3
"""Markdown of what bench.py and peers.py measured; as a program, whether a file is complete."""
import argparse
import json
import math
import pathlib
import sys


def table(heads, rows):
    """The first column is text, the others are numbers."""
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def number(value):
    """Three digits, without an exponent."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    decimals = 2 if size == 0 else min(5, 2 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def machine_text(data):
    machine = data["machine"]
    quick = " **A quick run: too short for its figures to mean much.**" if data["quick"] else ""
    return (f"{machine['processor']} (family/model {machine['family_model']}), "
            f"{machine['processors']} processors, {machine['memory_gib']} GiB, "
            f"Linux {machine['kernel']}, {' '.join(machine['isa'])}; revision {data['revision']}, "
            f"{data['date']}.{quick}\n")


def with_unit(value, unit):
    return f"{number(value)} {unit}".strip()


def targets_summary(targets):
    """A row for each target: how many of its cases are met, and the ones furthest apart."""
    rows = []
    for name in dict.fromkeys(t["name"] for t in targets):
        cases = [t for t in targets if t["name"] == name]
        cases.sort(key=lambda t: t["value"], reverse=cases[0]["relation"] == "<=")
        met = sum(t["met"] for t in cases)
        worst, best = cases[0], cases[-1]
        rows.append([name, f"{worst['relation']} {with_unit(worst['limit'], worst['unit'])}",
                     f"{met} of {len(cases)}", "yes" if met == len(cases) else "**no**",
                     f"{with_unit(worst['value'], worst['unit'])} ({worst['case']})",
                     f"{with_unit(best['value'], best['unit'])} ({best['case']})"])
    return table(["target", "asked", "cases that meet it", "met", "worst", "best"], rows)


def targets_table(targets):
    rows = [[t["name"], t["case"], with_unit(t["value"], t["unit"]),
             f"{t['relation']} {with_unit(t['limit'], t['unit'])}",
             "yes" if t["met"] else "**no**"] for t in targets]
    return table(["target", "case", "measured", "asked", "met"], rows)


def peak_table(peak):
    rows = []
    for name, label, unit in (("f32", "float32 multiply-adds, one thread", "GFLOP/s"),
                              ("bf16", "bfloat16 multiply-adds, one thread", "GFLOP/s"),
                              ("read_one", "memory read by one thread", "GB/s"),
                              ("read_all", "memory read by all threads", "GB/s")):
        rate = peak[name]["rate"]
        rows.append([label, f"{number(rate / 1e9)} {unit}" if rate else "not there",
                     peak[name].get("unit") or ""])
    return table(["the processor's", "most", "by"], rows)


def kernels_table(kernels):
    rows = [[f"{k['op']} {k['shape']} {k['precision']}", f"{k['rows']:,}",
             number(k["seconds"] * 1e6), number(k["rows_per_s"]), number(k["rate"] / 1e9),
             k["limited_by"], number(k["limit"] / 1e9), number(k["fraction"]), k["engine"]]
            for k in kernels]
    return table(["kernel", "rows", "us", "rows/s", "GFLOP/s or GB/s", "beside", "at most",
                  "fraction", "engine"], rows)


def http_table(http):
    rows = []
    for row in http:
        for name in ("nsad", "bare"):
            busy, alone = row[name]["busy"], row[name]["alone"]
            rows.append([f"{row['op']} {row['shape']}, {row['format']}", name,
                         row["connections"], number(busy["requests_per_s"]), number(busy["cpu_us"]),
                         number(busy["cpu_us"] * 1e3 / row["numbers"]),
                         *(number(busy[f"{p}_us"]) for p in ("p50", "p99", "p99_9")),
                         *(number(alone[f"{p}_us"]) for p in ("p50", "p99", "p99_9"))])
    return table(["request", "server", "connections", "requests/s", "CPU us", "CPU ns/number",
                  "p50 us", "p99",
                  "p99.9", "alone: p50", "p99", "p99.9"], rows)


def load_table(load):
    rows = [[point["shape"], name, point["connections"], number(point[name]["requests_per_s"]),
             *(number(point[name][f"{p}_us"]) for p in ("p50", "p99", "p99_9"))]
            for point in load for name in ("nsad", "bare")]
    return table(["raw compress", "server", "clients", "requests/s", "p50 us", "p99", "p99.9"],
                 rows)


def service_table(data):
    rows = [[f"{data['batching']['clients']} clients, {label}",
             f"{number(data['batching'][name]['requests_per_s'])} requests/s, p50 "
             f"{number(data['batching'][name]['p50_us'] / 1e3)} ms"]
            for name, label in (("batched", "batches"), ("alone", "--max-batch-rows 1"))]
    rows += [[f"{s['models']}: ready after, resident at rest",
              f"{number(s['ready_ms'])} ms, {number(s['resident_bytes'] / 1e6)} MB"]
             for s in data["start"]]
    return table(["service", "measured"], rows)


def bench_markdown(data):
    return "\n".join([
        "## Targets\n", targets_summary(data["targets"]),
        "## Machine\n", machine_text(data), peak_table(data["peak"]),
        "## Kernels, in process, one thread\n", kernels_table(data["kernels"]),
        f"GELU costs {number(data['gelu']['gelu_s'] * 1e6)} us more than ReLU on 256x512 values; "
        f"their matrix product takes {number(data['gelu']['gemm_s'] * 1e6)} us.\n",
        "## The daemon over loopback\n",
        "Connections that are never idle, fewer where bodies are large, beside a bare "
        "libmicrohttpd server with the same bodies; the load generator shares the processors. "
        "Alone: one connection.\n",
        http_table(data["http"]), "## Load\n", load_table(data["load"]),
        "## Service\n", service_table(data),
        "## Targets, case by case\n", targets_table(data["targets"])])


# --- peers -------------------------------------------------------------------------------------

PEERS = ("PyTorch", "oneDNN", "onnxruntime")


def peer_kernels_table(kernels):
    rows = []
    for row in kernels:
        times = [row["peers"].get(peer) for peer in PEERS]
        rows.append([f"{row['op']} {row['shape']} {row['precision']}", f"{row['rows']:,}",
                     number(row["nsad_s"] * 1e6),
                     *(f"{number(t * 1e6)} ({number(t / row['nsad_s'])}x)" if t else "-"
                       for t in times)])
    return table(["kernel", "rows", "nsad us", *(f"{peer} us" for peer in PEERS)], rows)


def peer_http_table(http):
    rows = []
    for row in http:
        nsad, peer = row["nsad"], row["fastapi"]
        rows.append([f"{row['op']} {row['shape']}, {row['format']}",
                     *(number(s["busy"]["requests_per_s"]) for s in (nsad, peer)),
                     f"{number(nsad['busy']['requests_per_s'] / peer['busy']['requests_per_s'])}x",
                     *(number(s["busy"]["cpu_us"]) for s in (nsad, peer)),
                     f"{number(peer['busy']['cpu_us'] / nsad['busy']['cpu_us'])}x",
                     *(number(s["alone"][p]) for p in ("p50_us", "p99_us") for s in (nsad, peer))])
    return table(["request", "nsad requests/s", "FastAPI requests/s", "ratio", "nsad CPU us",
                  "FastAPI CPU us", "ratio", "alone: nsad p50 us", "FastAPI p50", "nsad p99",
                  "FastAPI p99"], rows)


def peers_markdown(data):
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    missing = "".join(f"Missing, left out: {problem}.\n\n" for problem in data["missing"])
    parts = ["## Peers\n", machine_text(data),
             f"{versions}. One thread each, the same weights and inputs, by turns; in brackets, "
             "how many times nsad's time that is. onnxruntime goes through its Node binding, which "
             "takes some of its time with few rows.\n", missing,
             targets_summary(data["targets"]), peer_kernels_table(data["kernels"])]
    if data["http"]:
        parts += ["## PyTorch behind FastAPI\n",
                  f"One uvicorn worker on one processor against one nsad on all; "
                  f"{data['http'][0]['connections']} connections that are never idle. CPU time "
                  "compares them whatever the number of processors.\n",
                  peer_http_table(data["http"])]
    return "\n".join(part for part in parts if part)


# --- checks ------------------------------------------------------------------------------------

SECTIONS = ("peak", "kernels", "gelu", "http", "load", "batching", "start", "targets")


def missing(data, sections):
    """What a complete file has and this one has not: sections, and figures that are numbers."""
    problems = [f"no section {name}" for name in sections if not data.get(name)]
    todo = [(name, data.get(name)) for name in sections]
    while todo:
        where, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{where}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list):
            todo += [(f"{where}[{i}]", item) for i, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{where} is {value}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=pathlib.Path, required=True)
    options = parser.parse_args()
    problems = missing(json.loads(options.check.read_text()), SECTIONS)
    sys.exit("\n".join(problems) if problems else 0)


if __name__ == "__main__":
    main()
