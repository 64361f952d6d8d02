#!/usr/bin/env python3
"""What others need for the same work, beside nsad, by turns in one run: `make bench-peers`.

In process and on one thread each: PyTorch, oneDNN and onnxruntime, for every operation that they
have. Over HTTP: PyTorch behind FastAPI. Prints Markdown and writes the same as JSON.
"""
import argparse
import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys

import bodies
import machine
import report
import servers
import targets

HERE = pathlib.Path(__file__).parent
PYTHON = "/usr/bin/python3"
BUSY_CONNECTIONS = 4
TOLERANCE = {"f32": 1e-3, "bf16": 2e-2}  # of the mean magnitude of an output
# Libraries that allocate each output would else be timed at having its pages cleared.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
VERSIONS = "import torch, fastapi, uvicorn; print(torch.__version__, fastapi.__version__, " \
    "uvicorn.__version__)"


@dataclasses.dataclass
class Effort:
    """How long to measure: seconds of each round, and how many of them."""
    rounds: int = 3
    kernel_s: float = 0.08
    peak_s: float = 0.03
    max_rows: int = 65536
    http_rounds: int = 3
    http_s: float = 0.4
    warm_s: float = 0.1


QUICK = Effort(1, 0.003, 0.003, 64, 1, 0.05, 0.02)


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- in process ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Kernel:
    """One shape, as rows of the table and in the words of bench_kernels and peer_onnx.js."""
    op: str
    shape: str
    rows: int
    precision: str
    words: tuple
    onnx_words: tuple


def kernels(files, large, max_rows):
    for name, size in (("compress", bodies.SMALL), ("large", large)):
        inputs = size["n"] * size["d"]
        for precision in ("f32", "bf16"):
            for rows in size["rows"]:
                if rows <= max_rows:
                    yield Kernel("compress", f"d={size['d']} n={size['n']}", rows, precision,
                                 ("compress", files[name], precision, "gelu", rows),
                                 ("compress", name, precision, "gelu", rows, inputs))
    for rows, count, k in bodies.SELECT:
        words = ("select", rows, count, k)
        yield Kernel("select", f"{rows}x{count}, k {k}", rows, "f32", words, words)
    for name, shape in zip(("posembed", "long"), bodies.POSEMBED):
        yield Kernel("posembed", "x".join(map(str, shape)), shape[0] * shape[1], "f32",
                     ("posembed", files[name], *shape[:2]), ("posembed", name, *shape))


def start_peers(stack, options, files):
    """Workers by name, and what is missing: peers that can't be started are left out, and said."""
    def start(*command):
        return stack.enter_context(servers.Worker(*command, **KEEP_MEMORY))

    workers = {"nsad": stack.enter_context(servers.Worker(options.programs / "bench_kernels"))}
    missing, versions = [], {}
    torch = subprocess.run([PYTHON, "-c", VERSIONS], capture_output=True, text=True, check=False)
    if torch.returncode == 0:
        versions.update(zip(("PyTorch", "FastAPI", "uvicorn"), torch.stdout.split()))
        workers["PyTorch"] = start(PYTHON, HERE / "peer_torch.py")
    else:
        missing.append("PyTorch and FastAPI: Debian's python3-torch, python3-fastapi, "
                       "python3-uvicorn")
    if (options.programs / "bench_dnnl").exists():
        workers["oneDNN"] = start(options.programs / "bench_dnnl")
    else:
        missing.append("oneDNN: Debian's libdnnl-dev")
    package = options.modules / "onnxruntime-node/package.json"
    if package.exists() and torch.returncode == 0:
        versions["onnxruntime"] = json.loads(package.read_text())["version"]
        folder = options.programs / "bench_onnx"
        subprocess.run([PYTHON, HERE / "peer_export.py", folder,
                        *(f"{name}={path}" for name, path in files.items())], check=True)
        workers["onnxruntime"] = start("node", HERE / "peer_onnx.js", options.modules, folder)
    else:
        missing.append("onnxruntime: npm's onnxruntime-node, and PyTorch to export the models")
    return workers, missing, versions


def can(peer, kernel):
    """oneDNN has neither of the other operations, and onnxruntime no bfloat16 for processors."""
    return kernel.op == "compress" if peer == "oneDNN" else \
        kernel.precision == "f32" or peer != "onnxruntime"


def measure_kernel(workers, kernel, effort):
    results = {peer: [] for peer in workers if can(peer, kernel)}
    peaks = []
    for _ in range(effort.rounds):
        peaks.append(workers["nsad"].ask(effort.peak_s, "peak", "f32")["rate"])
        for peer, got in results.items():
            words = kernel.onnx_words if peer == "onnxruntime" else kernel.words
            got.append(workers[peer].ask(effort.kernel_s, *words))
    expected = results["nsad"][0]["check"]
    for peer, got in results.items():
        if abs(got[0]["check"] - expected) > TOLERANCE[kernel.precision] * abs(expected):
            raise RuntimeError(f"{peer} computes something else: {kernel}: {got[0]}, {expected}")
    seconds = {peer: min(g["seconds"] for g in got) for peer, got in results.items()}
    return {"op": kernel.op, "shape": kernel.shape, "rows": kernel.rows,
            "precision": kernel.precision, "peak": max(peaks), "nsad_s": seconds.pop("nsad"),
            "peers": seconds}


# --- over HTTP ------------------------------------------------------------------------------------


def http_cases(files):
    for format_name in ("raw", "json"):
        yield bodies.compress_case(files, 1, format_name)
        yield bodies.compress_case(files, 128, format_name)
        yield bodies.select_case(256, 32, 8, format_name)
        yield bodies.posembed_case(files, bodies.POSEMBED[0], format_name)


def measure_http(options, files, effort):
    results = []
    with servers.Nsad(options.nsad, "--model-repository", bodies.DEMO_MODELS) as nsad, \
            servers.PortServer(PYTHON, HERE / "peer_fastapi.py", files["compress"],
                               files["posembed"]) as fastapi, \
            servers.Load(options.programs / "bench_load") as load:
        for case in http_cases(files):
            rounds = {(name, n): [] for name in ("nsad", "fastapi") for n in (1, BUSY_CONNECTIONS)}
            for _ in range(effort.http_rounds):
                for (name, n), got in rounds.items():
                    server = nsad if name == "nsad" else fastapi
                    got.append(load.run(server, case.wire(), n, effort.warm_s, effort.http_s))
            results.append({"op": case.op, "shape": case.label, "format": case.format,
                            "connections": BUSY_CONNECTIONS,
                            **{name: {"busy": servers.best(rounds[name, BUSY_CONNECTIONS]),
                                      "alone": servers.best(rounds[name, 1])}
                               for name in ("nsad", "fastapi")}})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nsad", required=True)
    parser.add_argument("--programs", required=True, type=pathlib.Path)
    parser.add_argument("--modules", required=True, type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    servers.end_what_was_started()
    effort = QUICK if options.quick else Effort()
    large = bodies.QUICK_LARGE if options.quick else bodies.LARGE
    files = bodies.make_models(options.programs / "bench_models", large)
    data = {"quick": options.quick, **machine.describe(), "kernels": [], "http": []}
    with contextlib.ExitStack() as stack:
        workers, data["missing"], data["versions"] = start_peers(stack, options, files)
        for problem in data["missing"]:
            say(f"missing, left out: {problem}")
        for kernel in kernels(files, large, effort.max_rows):
            say(f"measuring: {kernel.op} {kernel.shape}, {kernel.rows} rows, {kernel.precision}")
            data["kernels"].append(measure_kernel(workers, kernel, effort))
    if "FastAPI" in data["versions"]:
        say("measuring: HTTP")
        data["http"] = measure_http(options, files, effort)
    data["targets"] = list(targets.judge_peers(data))
    options.out.write_text(json.dumps(data, indent=1))
    print(report.peers_markdown(data))


if __name__ == "__main__":
    main()
