"""What the project asks of itself, and whether a run of bench.py shows it."""

BINARY = ("raw", "npy", "oip")


def target(name, case, value, relation, limit, unit=""):
    met = value >= limit if relation == ">=" else value <= limit
    return {"name": name, "case": case, "value": value, "relation": relation, "limit": limit,
            "unit": unit, "met": met}


def kernel_targets(data):
    for kernel in data["kernels"]:
        if kernel["op"] != "compress":
            continue
        case = f"{kernel['shape']}, {kernel['rows']} rows"
        if kernel["limited_by"] == "memory" and kernel["precision"] == "f32":
            yield target(f"one row of the {data['batching']['model']}, of the memory's bandwidth",
                         case, kernel["fraction"], ">=", 0.8)
        elif kernel["rows"] >= 64 and kernel["precision"] == "f32":
            yield target("compress f32 with activation, of f32 peak", case, kernel["fraction"],
                         ">=", 0.85)
        # The peak is that of AVX512-BF16: it says nothing of the matrix unit.
        elif kernel["rows"] >= 64 and kernel["limited_by"] == "bf16 peak" and \
                kernel["engine"] != "panels-amx":
            yield target("compress bf16 with activation, of bf16 peak", case, kernel["fraction"],
                         ">=", 0.75)
    yield target("GELU above ReLU, of the GEMM's time", "256x512x256", data["gelu"]["fraction"],
                 "<=", 0.10)


def http_targets(data):
    """JSON is held to time for each number; the binary formats to what a bare server needs."""
    peak = data["peak"]["f32"]["rate"]
    for row in data["http"]:
        case = f"{row['op']} {row['shape']}, {row['format']}"
        nsad, bare = row["nsad"], row["bare"]
        if row["format"] not in BINARY:
            yield target("JSON: CPU of a number, all told", case,
                         nsad["busy"]["cpu_us"] * 1e3 / row["numbers"], "<=", 35, "ns")
            continue
        least = row["flop"] / peak * 1e6 + bare["busy"]["cpu_us"]
        name = "CPU a request, of arithmetic at peak and bare libmicrohttpd" \
            if row["op"] == "compress" else "CPU a request, of bare libmicrohttpd"
        yield target(name, case, nsad["busy"]["cpu_us"] / least, "<=",
                     1.15 if row["op"] == "compress" else 1.2)
        yield target("alone: p50 above bare libmicrohttpd's and the kernel's time", case,
                     nsad["alone"]["p50_us"] - bare["alone"]["p50_us"] - row["kernel_us"], "<=",
                     30, "us")


def service_targets(data):
    batching = data["batching"]
    yield target(f"one-row clients of the {batching['model']}: throughput, of that without batches",
                 f"{batching['clients']} clients",
                 batching["batched"]["requests_per_s"] / batching["alone"]["requests_per_s"],
                 ">=", 15)
    for start in data["start"]:
        if start["models"] == "demo models":
            yield target("ready", start["models"], start["ready_ms"], "<=", 100, "ms")
        yield target("resident at rest above the weights", start["models"],
                     (start["resident_bytes"] - start["weight_bytes"]) / 1e6, "<=", 30, "MB")


def judge(data):
    return [*kernel_targets(data), *http_targets(data), *service_targets(data)]


def judge_peers(data):
    """Ratios of a peer's time to nsad's: above 1, nsad is faster."""
    for row in data["kernels"]:
        case = f"{row['op']} {row['shape']}, {row['rows']} rows, {row['precision']}"
        ratios = {peer: seconds / row["nsad_s"] for peer, seconds in row["peers"].items()}
        if row["op"] == "select" and "PyTorch" in ratios:
            yield target("select, times as fast as torch.topk", case, ratios["PyTorch"], ">=", 5)
        if row["op"] == "compress" and row["precision"] == "f32" and "oneDNN" in ratios:
            yield target("compress f32, times as fast as oneDNN", case, ratios["oneDNN"], ">=", 1)
