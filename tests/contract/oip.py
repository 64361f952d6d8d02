"""The Open Inference Protocol's part of the contract test."""
import gzip
import json
import os
import zlib

JSON = "application/json"
RAW = "application/octet-stream"
LENGTH = "Inference-Header-Content-Length"

# A server that lets clients do everything that the document has.
OPTIONS = ["--model-control", "explicit", "--allow-client-shm"]

INFER = ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"]

# What clients may change only if an option says so.
SWITCHED = [
    ("POST", "/v2/repository/models/{model}/load"),
    ("POST", "/v2/repository/models/{model}/unload"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("HEAD", "/v2/systemsharedmemory/status"),
    ("GET", "/v2/systemsharedmemory/region/{region}/status"),
    ("HEAD", "/v2/systemsharedmemory/region/{region}/status"),
    ("POST", "/v2/systemsharedmemory/region/{region}/register"),
    ("POST", "/v2/systemsharedmemory/region/{region}/unregister"),
    ("POST", "/v2/systemsharedmemory/unregister"),
]

# Answered while models load.
WITHOUT_MODELS = {"/v2", "/v2/", "/v2/health/live", "/v2/logging"}


def without_models(path):
    return path in WITHOUT_MODELS or "sharedmemory" in path or path.endswith("/trace/setting")


class Segment:
    """The shared memory that the document's examples name; a context."""

    PATH = "/dev/shm/nsad-contract"

    def __enter__(self):
        with open(self.PATH, "wb") as file:
            file.write(bytes(4096))

    def __exit__(self, *_):
        os.unlink(self.PATH)


def raw_request(large=False, **headers):
    """Rows for the demo model compress, without JSON; none, or more than are cheap."""
    return {"headers": {LENGTH: "0", **headers}, "body": bytes(64 * 256 * 4 if large else 0)}


def answer_problems(answer):
    """What is wrong with an answer in JSON and bytes."""
    headers = {name.lower(): value for name, value in answer.headers}
    body = answer.body
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    elif headers.get("content-encoding") == "deflate":
        body = zlib.decompress(body)
    length = int(headers[LENGTH.lower()])
    sizes = [output.get("parameters", {}).get("binary_data_size", 0)
             for output in json.loads(body[:length])["outputs"]]
    if len(body) != length + sum(sizes):
        return [f"{len(body)} bytes for {length} of JSON and {sizes}"]
    return []


def infer_json(inputs=None, **more):
    if inputs is None:
        inputs = [tensor()]
    return {"headers": {}, "body": json.dumps({"inputs": inputs, **more}).encode()}


def tensor(**changed):
    whole = {"name": "x", "datatype": "FP32", "shape": [0, 4, 64], "data": [], **changed}
    return {key: value for key, value in whole.items() if value is not None}


def mixed(inputs, blob, length=None, **more):
    text = json.dumps({"inputs": inputs, **more}).encode()
    return {"headers": {LENGTH: len(text) if length is None else length}, "body": text + blob}


def refusals():
    """(status, a part of the message, request) of what infer must refuse so."""
    binary = {"parameters": {"binary_data_size": 1024}, "shape": [1, 4, 64], "data": None}
    region = {"shared_memory_region": "nobody", "shared_memory_byte_size": 1024}

    yield 400, "nothing", {"body": b""}
    yield 400, "malformed JSON", {"body": b"{"}
    yield 400, "expected a JSON object", {"body": b"[1]"}
    yield 400, "inputs: expected an array", {"body": b"{}"}
    yield 400, "inputs: expected 'x'", infer_json([])
    yield 400, "unexpected input 'y'", infer_json([tensor(name="y")])
    yield 400, "given twice", infer_json([tensor(), tensor()])
    yield 400, "expected FP32, FP16", infer_json([tensor(datatype="INT8")])
    yield 400, "expected FP32, FP16, BF16 or FP64 for 'x'", infer_json([tensor(datatype="INT64")])
    yield 400, "integers of at least 0", infer_json([tensor(shape=[-1, 4, 64])])
    yield 400, "shape", infer_json([tensor(shape=[2**40, 2**40])])
    yield 400, "up to 32 integers", infer_json([tensor(shape=[0] * 33)])
    yield 400, "x: expected shape [..., 4, 64]", infer_json([tensor(shape=[0, 3])])
    yield 400, "exactly one of data", infer_json([tensor(data=None)])
    yield 400, "exactly one of data", mixed([tensor(**{**binary, "data": [1]})], bytes(1024))
    yield 400, "expected 256 numbers", infer_json([tensor(shape=[1, 4, 64], data=[1])])
    yield 400, "expected 1024 bytes behind", mixed([tensor(**binary)], bytes(1023))
    yield 400, "got 1 more bytes", mixed([tensor(**binary)], bytes(1025))
    yield 400, "expected 2048 bytes", mixed([tensor(**{**binary, "shape": [2, 4, 64]})], bytes(9))
    yield 400, "at most the", mixed([tensor()], b"", 10**9)
    yield 400, "at most the", mixed([tensor()], b"", 10**40)
    yield 400, "expected an integer of bytes", mixed([tensor()], b"", "-1")
    yield 400, "expected an integer of bytes", mixed([tensor()], b"", "7x")
    yield 400, "a multiple of 1024 bytes", {"headers": {LENGTH: 0}, "body": bytes(5)}
    yield 400, "does not fit float16", infer_json([tensor(datatype="FP16", data=[70000])])
    yield 400, "unexpected output 'z'", infer_json(outputs=[{"name": "z"}])
    yield 400, "given twice", infer_json(outputs=[{"name": "y"}, {"name": "y"}])
    yield 400, "true or false", infer_json(parameters={"binary_data_output": 1})
    yield 400, "timeout", infer_json(parameters={"timeout": -1})
    yield 400, "id: expected a text", infer_json(id=7)
    yield 400, "'nobody': not registered", infer_json([tensor(
        shape=[1, 4, 64], data=None, parameters=region)])
    yield 400, "Content-Encoding", {"headers": {"Content-Encoding": "br"}, "body": b"{}"}
    yield 400, "compressed body", {"headers": {"Content-Encoding": "gzip"}, "body": b"{}"}
    yield 504, "deadline", {**infer_json(), "headers": {"X-Request-Timeout-Ms": "0"}}


def problems_of(contract, daemon, path, method, status, part, *, params=None, **request):
    """Ask for what must be refused so, with {"error"} alone."""
    answer = contract.ask(daemon, method, path, params=params, **request)
    problems = contract.check(path, method, answer)
    if answer.status != status:
        problems.append(f"{method} {path}: expected {status}, got {answer.status}: "
                        f"{answer.body[:200]!r} to {str(request)[:200]}")
    elif method != "HEAD" and part not in json.loads(answer.body)["error"]:
        problems.append(f"{method} {path}: expected '{part}', got {answer.body[:300]!r}")
    return problems + daemon.alive()


def test_refusals(contract, daemon, path):
    for status, part, request in refusals():
        yield from problems_of(contract, daemon, path, "POST", status, part, **request)
    yield from problems_of(contract, daemon, path, "POST", 404, "Request for unknown model: 'a b'",
                           params={"model": "a b"}, **infer_json())


def test_encodings(contract, daemon, path):
    """The length is of the JSON as it was before compression, both ways."""
    rows = bytes(64 * 256 * 4)
    inputs = [tensor(shape=[64, 4, 64], data=None, parameters={"binary_data_size": len(rows)})]
    plain = mixed(inputs, rows, parameters={"binary_data_output": True})
    expected = contract.ask(daemon, "POST", path, **plain)
    for name, pack, unpack in [("gzip", gzip.compress, gzip.decompress),
                               ("deflate", zlib.compress, zlib.decompress)]:
        headers = {**plain["headers"], "Content-Encoding": name, "Accept-Encoding": name}
        answer = contract.ask(daemon, "POST", path, headers=headers, body=pack(plain["body"]))
        yield from contract.check(path, "POST", answer)
        if dict(answer.headers).get("Content-Encoding") != name:
            yield f"{path}: expected an answer in {name}"
        elif unpack(answer.body) != expected.body:
            yield f"{path}: {name}: another answer than to a plain body"


def test_pages(contract, daemon):
    """Models and versions that aren't there, on every page of a model."""
    for path, method, _ in contract.document.operations():
        if "{model}" not in path or path in INFER or path.endswith("/trace/setting"):
            continue
        yield from problems_of(contract, daemon, path, method, 404, "Request for unknown model: ",
                               params={"model": "nobody"}, body=b"" if method == "POST" else None)
        if "{version}" in path:
            yield from problems_of(contract, daemon, path, method, 404, "version 9 is not found",
                                   params={"version": "9"})
            yield from problems_of(contract, daemon, path, method, 400, "a positive integer",
                                   params={"version": "x"})
    yield from problems_of(contract, daemon, "/v2/repository/index", "POST", 400, "malformed JSON",
                           body=b'{"ready": tru')
    yield from problems_of(contract, daemon, "/v2/repository/models/{model}/unload", "POST", 400,
                           "always there", params={"model": "select"})


def test_switches(contract, daemon):
    """501 where the server doesn't let clients do it."""
    for method, path in SWITCHED:
        yield from problems_of(contract, daemon, path, method, 501, "only with --", body=b"{}")
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 0}
    request = infer_json([tensor(data=None, parameters=region)])
    yield from problems_of(contract, daemon, INFER[0], "POST", 400, "--allow-client-shm", **request)


def test_unknown_route(contract, daemon):
    schema = contract.document.at("#/components/schemas/OipError")
    for path in ("/v2/models", "/v2/models//infer", "/v2/models/a/b/infer", "/v2/unheard-of",
                 "/v2/models/" + "x" * 300):
        answer = contract.ask(daemon, "GET", path)
        if answer.status != 404:
            yield f"{path[:60]}: expected 404, got {answer.status}"
        yield from contract.document.errors(schema, json.loads(answer.body))
