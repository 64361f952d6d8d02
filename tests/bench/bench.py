#!/usr/bin/env python3
"""Measure the library and the daemon beside what the machine can do at most: `make bench`.

Prints Markdown and writes the same as JSON. Everything that is compared is measured in turns within
one run, since a machine's speed varies: with its temperature, and with what else it does.
"""
import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys

import bodies
import machine
import report
import servers
import targets

LOAD_CONNECTIONS = (1, 2, 4, 8, 16, 32, 64)
LOAD_ROWS = (1, 128)
BATCH_CLIENTS = 32

# Connections that keep the processors busy: the first where body and answer are small. With many of
# large ones the CPU time of a request is that of full socket buffers, and no two runs agree.
BUSY_CONNECTIONS = (16, 4)
SMALL_BYTES = 32768
STARTS = 7


@dataclasses.dataclass
class Effort:
    """How long to measure: seconds of each round, and how many of them."""
    quick: bool = False
    rounds: int = 9  # of kernels
    kernel_s: float = 0.08
    peak_s: float = 0.03
    bandwidth_s: float = 0.15
    http_rounds: int = 3
    warm_s: float = 0.05
    http_s: float = 0.25
    batching_s: float = 2.0


QUICK = Effort(True, 1, 0.003, 0.003, 0.02, 1, 0.02, 0.05, 0.3)


@dataclasses.dataclass
class Bench:
    """What the sections below share."""
    nsad: str
    effort: Effort
    files: dict
    worker: servers.Worker
    load: servers.Load
    bare: servers.PortServer
    large: dict  # what bodies.py says of the large model


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- the processor -------------------------------------------------------------------------------


def measure_peak(bench):
    """The most that this run saw; `measure_kernel` takes its own beside each kernel."""
    effort, ask = bench.effort, bench.worker.ask
    peak = {}
    for _ in range(effort.rounds):
        for name, seconds, words in (
                ("f32", effort.peak_s, ("peak", "f32")), ("bf16", effort.peak_s, ("peak", "bf16")),
                ("read_one", effort.bandwidth_s, ("bandwidth", 1)),
                ("read_all", effort.bandwidth_s, ("bandwidth", os.cpu_count()))):
            answer = ask(seconds, *words)
            if name not in peak or answer["rate"] > peak[name]["rate"]:
                peak[name] = answer
    return peak


# --- kernels -------------------------------------------------------------------------------------


def measure_kernel(bench, words, limit):
    """Seconds of a call, and the rate of `limit`, by turns."""
    effort, ask = bench.effort, bench.worker.ask
    limit_s = effort.peak_s if limit[0] == "peak" else effort.bandwidth_s
    limits, calls = [], []
    for _ in range(effort.rounds):
        limits.append(ask(limit_s, *limit)["rate"])
        calls.append(ask(effort.kernel_s, *words))
    return min(call["seconds"] for call in calls), max(limits), calls[0]["engine"]


def compress_kernels(bench, name, size):
    """Rows of few flops a byte are held to the memory's bandwidth, the others to arithmetic."""
    results = []
    for precision in ("f32", "bf16"):
        weight_bytes = bodies.compress_weights(size) * (4 if precision == "f32" else 2)
        for rows in size["rows"]:
            if bench.effort.quick and rows > bodies.QUICK_MAX_ROWS:
                continue
            from_memory = name == "large" and rows == 1
            has_bf16 = bench.worker.ask(0, "peak", "bf16")["rate"] > 0
            unit = precision if has_bf16 else "f32"
            seconds, limit, engine = measure_kernel(
                bench, ("compress", bench.files[name], precision, "gelu", rows),
                ("bandwidth", 1) if from_memory else ("peak", unit))
            work = weight_bytes if from_memory else bodies.compress_flop(size, rows)
            results.append({
                "op": "compress", "shape": f"d={size['d']} n={size['n']}", "rows": rows,
                "precision": precision, "seconds": seconds, "engine": engine,
                "rows_per_s": rows / seconds, "rate": work / seconds, "limit": limit,
                "limited_by": "memory" if from_memory else f"{unit} peak",
                "fraction": work / seconds / limit})
    return results


def memory_kernel(bench, op, words, label, rows, moved_bytes):
    seconds, limit, engine = measure_kernel(bench, words, ("bandwidth", 1))
    return {"op": op, "shape": label, "rows": rows, "precision": "f32", "seconds": seconds,
            "engine": engine, "rows_per_s": rows / seconds, "rate": moved_bytes / seconds,
            "limit": limit, "limited_by": "memory", "fraction": moved_bytes / seconds / limit}


def measure_kernels(bench):
    results = compress_kernels(bench, "compress", bodies.SMALL)
    results += compress_kernels(bench, "large", bench.large)
    for rows, count, k in bodies.SELECT:
        results.append(memory_kernel(bench, "select", ("select", rows, count, k),
                                     f"{rows}x{count}, k {k}", rows, rows * (4 * count + 8 * k)))
    for name, (batch, length, dim) in zip(("posembed", "long"), bodies.POSEMBED):
        moved = 4 * length * dim * (2 * batch + 1)
        results.append(memory_kernel(
            bench, "posembed", ("posembed", bench.files[name], batch, length),
            f"{batch}x{length}x{dim}", batch * length, moved))
    return results


def measure_gelu(bench):
    """What GELU costs above ReLU, beside the first matrix product of 256 rows: 256 x 512 x 256."""
    words = ("compress", bench.files["compress"], "f32")
    times = {"gelu": [], "relu": []}
    for _ in range(2 * bench.effort.rounds):
        for activation, seconds in times.items():
            seconds.append(bench.worker.ask(bench.effort.kernel_s, *words, activation,
                                            256)["seconds"])
    gelu, relu = min(times["gelu"]), min(times["relu"])
    inputs = bodies.SMALL["n"] * bodies.SMALL["d"]
    share = inputs / (inputs + bodies.SMALL["d"])  # of the flops that the first product has
    return {"gelu_s": gelu - relu, "gemm_s": relu * share, "fraction": (gelu - relu) /
            (relu * share)}


# --- the daemon --------------------------------------------------------------------------------


def measure_http(bench):
    effort, load = bench.effort, bench.load
    results = []
    with servers.Nsad(bench.nsad, "--model-repository", bodies.DEMO_MODELS) as nsad:
        for case in bodies.http_cases(bench.files):
            size = len(nsad.answer(case))
            pairs = {"nsad": (nsad, case.wire()), "bare": (bench.bare, case.wire(f"/{size}"))}
            busy = BUSY_CONNECTIONS[len(case.body) + size > SMALL_BYTES]
            rounds = {(name, n): [] for name in pairs for n in (1, busy)}
            kernel = []
            for _ in range(effort.http_rounds):
                for (name, n), got in rounds.items():
                    got.append(load.run(*pairs[name], n, effort.warm_s, effort.http_s))
                kernel.append(bench.worker.ask(effort.peak_s, *case.kernel)["seconds"])
            results.append({
                "op": case.op, "shape": case.label, "format": case.format,
                "numbers": case.numbers, "flop": case.flop, "body_bytes": len(case.body),
                "answer_bytes": size, "connections": busy,
                "kernel_us": min(kernel) * 1e6,
                **{name: {"busy": servers.best(rounds[name, busy]),
                          "alone": servers.best(rounds[name, 1])} for name in pairs}})
    return results


def measure_load(bench):
    """Latency and throughput for more and more clients."""
    effort = bench.effort
    points = []
    with servers.Nsad(bench.nsad, "--model-repository", bodies.DEMO_MODELS) as nsad:
        for rows in LOAD_ROWS:
            case = bodies.compress_case(bench.files, rows, "raw")
            size = len(nsad.answer(case))
            for n in LOAD_CONNECTIONS if not effort.quick else LOAD_CONNECTIONS[::4]:
                rounds = {"nsad": [], "bare": []}
                for _ in range(max(1, effort.http_rounds - 1)):
                    for name, server, wire in (("nsad", nsad, case.wire()),
                                               ("bare", bench.bare, case.wire(f"/{size}"))):
                        rounds[name].append(bench.load.run(server, wire, n, effort.warm_s,
                                                           effort.http_s))
                points.append({"shape": case.label, "connections": n,
                               **{name: servers.best(got) for name, got in rounds.items()}})
    return points


def measure_batching(bench):
    """Clients with one row each for a model that memory bounds, with batches and without."""
    effort = bench.effort
    case = bodies.large_row_case(bench.files, bench.large)
    repository = bench.files["large"].parents[2]
    rounds = {"batched": [], "alone": []}
    with contextlib.ExitStack() as stack:
        nsads = {name: stack.enter_context(servers.Nsad(bench.nsad, "--model-repository",
                                                        repository, *options))
                 for name, options in (("batched", ()), ("alone", ("--max-batch-rows", 1)))}
        for _ in range(max(1, effort.http_rounds - 1)):
            for name, nsad in nsads.items():
                rounds[name].append(bench.load.run(nsad, case.wire(), BATCH_CLIENTS, effort.warm_s,
                                                   effort.batching_s))
    return {"clients": BATCH_CLIENTS, "model": bodies.model_label(bench.large),
            **{name: servers.best(got) for name, got in rounds.items()}}


def measure_start(bench):
    """Time until ready and memory at rest, of the demo models and of the large one."""
    results = []
    demo_bytes = sum(bench.files[name].stat().st_size for name in ("compress", "posembed"))
    for name, repository, weight_bytes, starts in (
            ("demo models", bodies.DEMO_MODELS, demo_bytes, STARTS),
            (bodies.model_label(bench.large), bench.files["large"].parents[2],
             bench.files["large"].stat().st_size, 1)):
        ready, resident = [], []
        for _ in range(1 if bench.effort.quick else starts):
            with servers.Nsad(bench.nsad, "--model-repository", repository) as nsad:
                ready.append(nsad.ready_s)
                resident.append(nsad.resident_bytes())
        results.append({"models": name, "weight_bytes": weight_bytes,
                        "ready_ms": statistics.median(ready) * 1e3,
                        "resident_bytes": max(resident)})
    return results


# --- all of it -----------------------------------------------------------------------------------

SECTIONS = {"peak": measure_peak, "kernels": measure_kernels, "gelu": measure_gelu,
            "http": measure_http, "load": measure_load, "batching": measure_batching,
            "start": measure_start}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nsad", required=True)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    servers.end_what_was_started()
    effort = QUICK if options.quick else Effort()
    large = bodies.QUICK_LARGE if options.quick else bodies.LARGE
    data = {"quick": effort.quick, **machine.describe(), "effort": dataclasses.asdict(effort)}
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        files = bodies.make_models(options.programs / "bench_models", large)
        bench = Bench(options.nsad, effort, files,
                      enter(servers.Worker(options.programs / "bench_kernels")),
                      enter(servers.Load(options.programs / "bench_load")),
                      enter(servers.PortServer(options.programs / "bench_bare")), large)
        for name, measure in SECTIONS.items():
            say(f"measuring: {name}")
            data[name] = measure(bench)
    data["targets"] = targets.judge(data)
    options.out.write_text(json.dumps(data, indent=1))
    print(report.bench_markdown(data))


if __name__ == "__main__":
    main()
