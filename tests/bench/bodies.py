"""What is measured: the weights, the shapes, and the requests as they go over the wire."""
import dataclasses
import io
import json
import pathlib
import shutil

import numpy as np

DEMO_MODELS = pathlib.Path("docker/models")

# Blocks of n keys of d numbers: the demo model, and one of 138 MB. hidden is 2 n d.
SMALL = {"d": 64, "n": 4, "rows": (1, 4, 16, 64, 256, 4096, 65536)}
LARGE = {"d": 128, "n": 32, "rows": (1, 16, 64, 1024)}
QUICK_LARGE = {"d": 128, "n": 8, "rows": (1, 16, 64)}  # 9 MB, for a quick look
SELECT = ((256, 32, 8), (16384, 64, 16), (32768, 128, 16), (32, 1024, 16), (1024, 2048, 64),
          (64, 131072, 2048))
POSEMBED = ((2, 32, 512), (8, 2048, 512))
QUICK_MAX_ROWS = 256


def compress_flop(size, rows):
    """Two matrix products: (rows, nd) x (nd, 2nd) and (rows, 2nd) x (2nd, d)."""
    inputs = size["n"] * size["d"]
    return 2.0 * rows * (inputs * 2 * inputs + 2 * inputs * size["d"])


def compress_weights(size):
    """The number of weights and biases."""
    inputs = size["n"] * size["d"]
    return inputs * 2 * inputs + 2 * inputs + 2 * inputs * size["d"] + size["d"]


# --- weights ----------------------------------------------------------------------------------


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(array.tobytes())


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return {name: np.frombuffer(data[start:], "<f4", int(np.prod(entry["shape"])),
                                entry["data_offsets"][0]).reshape(entry["shape"])
            for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"}


def uniform(random, fan_in, *shape):
    """As torch.nn.Linear starts."""
    return (random.random(shape, np.float32) * 2 - 1) / np.float32(np.sqrt(fan_in))


def model_label(size):
    return f"{4 * compress_weights(size) / 1e6:.0f} MB model"


def make_models(directory, large):
    """The files of weights by name: the demo models, and larger ones that are made up."""
    random = np.random.default_rng(7)
    inputs, hidden, d = large["n"] * large["d"], 2 * large["n"] * large["d"], large["d"]
    files = {
        "compress": DEMO_MODELS / "compress/1/model.safetensors",
        "posembed": DEMO_MODELS / "posembed/1/model.safetensors",
        "large": directory / "large/large/1/model.safetensors",
        "long": directory / "long/long/1/model.safetensors",
    }
    shutil.rmtree(directory, ignore_errors=True)
    write_safetensors(files["large"], {
        "mlp.1.weight": uniform(random, inputs, hidden, inputs),
        "mlp.1.bias": uniform(random, inputs, hidden),
        "mlp.3.weight": uniform(random, hidden, d, hidden),
        "mlp.3.bias": uniform(random, hidden, d)})
    write_safetensors(files["long"], {"embedding.weight": uniform(random, 1, *POSEMBED[1][1:])})
    return files


def hashed(*shape):
    """The numbers of measure.c's bench_fill()."""
    bits = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(2654435761)
    bits = (bits ^ bits >> np.uint32(15)) * np.uint32(2246822519)
    bits ^= bits >> np.uint32(13)
    return ((bits >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - 1).reshape(shape)


# --- requests ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Case:
    """One request, in one format."""
    op: str
    label: str
    format: str
    target: str  # path and query
    headers: dict
    body: bytes
    numbers: int  # of input and output together
    flop: float  # of compress
    kernel: tuple  # what bench_kernels calls it

    def wire(self, path=None):
        """The request's bytes; a bare server gets the same ones for another path."""
        target = self.target if path is None else path + self.target.partition("?")[1] + \
            self.target.partition("?")[2]
        lines = [f"POST {target} HTTP/1.1", "Host: 127.0.0.1",
                 *(f"{name}: {value}" for name, value in self.headers.items()),
                 f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def shortest(array):
    """Nested lists of numbers that print as the shortest text of a float32."""
    return [shortest(row) for row in array] if array.ndim > 1 else \
        [float(str(number)) for number in array]


def encode(format_name, op, model, array, parameters):
    """(target, headers, body) of a request."""
    query = [f"{name}={value}" for name, value in parameters.items()]
    shape = ",".join(map(str, array.shape))
    path = f"/v1/{op}"
    if format_name in ("json", "json, f64 digits"):
        values = shortest(array) if format_name == "json" else array.tolist()
        return (path, {"Content-Type": "application/json"},
                json.dumps({"input": values, **parameters}).encode())
    if format_name == "npy":
        return (path + ("?" + "&".join(query) if query else ""),
                {"Content-Type": "application/x-npy"}, npy_bytes(array))
    if format_name == "raw":
        query += [f"shape={shape}", "dtype=float32"]
        return (path + "?" + "&".join(query), {"Content-Type": "application/octet-stream"},
                array.tobytes())
    head = json.dumps({
        "inputs": [{"name": "scores" if op == "select" else "x", "shape": list(array.shape),
                    "datatype": "FP32", "parameters": {"binary_data_size": array.nbytes}}],
        "outputs": [{"name": "indices" if op == "select" else "y"}],
        "parameters": {"binary_data_output": True, **parameters}}).encode()
    return (f"/v2/models/{model}/infer",
            {"Content-Type": "application/octet-stream",
             "Inference-Header-Content-Length": len(head)}, head + array.tobytes())


FORMATS = ("raw", "npy", "oip", "json", "json, f64 digits")


def compress_array(size, rows):
    return np.random.default_rng(1).standard_normal((rows, size["n"], size["d"]), np.float32)


def compress_case(files, rows, format_name):
    array = compress_array(SMALL, rows)
    return Case("compress", f"{rows} row{'s' if rows > 1 else ''}", format_name,
                *encode(format_name, "compress", "compress", array, {}),
                numbers=array.size + rows * SMALL["d"], flop=compress_flop(SMALL, rows),
                kernel=("compress", files["compress"], "f32", "gelu", rows))


def select_case(rows, count, k, format_name):
    array = np.random.default_rng(1).standard_normal((rows, count), np.float32)
    return Case("select", f"{rows}x{count}, k {k}", format_name,
                *encode(format_name, "select", "select", array, {"num_selected_blocks": k}),
                numbers=rows * (count + k), flop=0.0, kernel=("select", rows, count, k))


def posembed_case(files, shape, format_name):
    array = np.random.default_rng(1).standard_normal(shape, np.float32)
    return Case("posembed", "x".join(map(str, shape)), format_name,
                *encode(format_name, "posembed", "posembed", array, {}),
                numbers=2 * array.size, flop=0.0,
                kernel=("posembed", files["posembed"], *shape[:2]))


def http_cases(files):
    return [*(compress_case(files, rows, f) for rows in (1, 32) for f in FORMATS[:-1]),
            *(compress_case(files, 128, f) for f in FORMATS),
            *(select_case(16, 32, 8, f) for f in FORMATS[:-1]),
            *(select_case(256, 32, 8, f) for f in FORMATS),
            *(posembed_case(files, POSEMBED[0], f) for f in FORMATS)]


def large_row_case(files, large):
    """One row for the large model."""
    array = compress_array(large, 1)
    return Case("compress", "1 row", "raw", *encode("raw", "compress", "large", array, {}),
                numbers=array.size + large["d"], flop=compress_flop(large, 1),
                kernel=("compress", files["large"], "f32", "gelu", 1))
