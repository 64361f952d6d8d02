"""The Open Inference Protocol beside inference: models, statistics, settings, shared memory."""
import base64
import contextlib
import json
import os
import pathlib
import struct

from daemon import Daemon
from document import is_oip
from oip import infer, packed, scores

MODEL = "/v2/models/{model}"
READY = MODEL + "/ready"
STATISTICS = MODEL + "/stats"
INFER = MODEL + "/infer"
INDEX = "/v2/repository/index"
LOAD = "/v2/repository/models/{model}/load"
UNLOAD = "/v2/repository/models/{model}/unload"
LOGGING = "/v2/logging"
SHARED = "/v2/systemsharedmemory"
REGISTER = SHARED + "/region/{region}/register"
UNREGISTER = SHARED + "/region/{region}/unregister"
UNREGISTER_ALL = SHARED + "/unregister"
REGION = SHARED + "/region/{region}/status"
REGIONS = SHARED + "/status"

# What these need of a server.
OPTIONS = ["--model-control", "explicit", "--allow-client-shm"]

# The segment of the document's examples.
EXAMPLE_SEGMENT = "nsad-openapi"


@contextlib.contextmanager
def segment(name, content):
    """A POSIX shared memory segment of that content; its file."""
    path = pathlib.Path("/dev/shm", name)
    path.write_bytes(content)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def body_of(**fields):
    return {"body": json.dumps(fields).encode()}


def expect(contract, daemon, method, path, problems, status=200, **request):
    """The answer's value (None: it has no body); what is wrong with it goes to `problems`."""
    answer = contract.ask(daemon, method, path, **request)
    problems += contract.check(path, method, answer)
    if answer.status != status:
        problems.append(f"{method} {path}: expected {status}, got {answer.status}: "
                        f"{answer.body[:200]!r} to {request}")
    return json.loads(answer.body) if answer.body else None


# --- pages of models -----------------------------------------------------------------------------


def test_unknown_models(contract, daemon):
    """Each page of a model is a 404 for one that isn't there, a 400 for what is no version."""
    for path, method, _ in contract.document.operations():
        if path.startswith(MODEL) and method != "POST" and "trace" not in path:
            request = {"method": method, "params": {"model": "nobody"}}
            yield from contract.refuse(daemon, path, 404, "Request for unknown model: 'nobody'",
                                       **request)
            if "{version}" in path:
                yield from contract.refuse(daemon, path, 404, "version 9", method=method,
                                           params={"version": 9})
                yield from contract.refuse(daemon, path, 400, "version: expected", method=method,
                                           params={"version": "first"})


def test_statistics(contract, daemon):
    """A success and a failure count; other models' numbers stay."""
    problems = []

    def read(model):
        page = expect(contract, daemon, "GET", STATISTICS, problems, params={"model": model})
        return page["model_stats"][0]["inference_stats"], page["model_stats"][0]

    before, other = read("select"), read("posembed")
    expect(contract, daemon, "POST", INFER, problems, **infer(scores()))
    expect(contract, daemon, "POST", INFER, problems, status=400, **infer(scores(name="x")))
    after = read("select")
    grown = {key: after[0][key]["count"] - before[0][key]["count"] for key in after[0]}
    if grown != {"success": 1, "fail": 1, "queue": 1, "compute_input": 1, "compute_infer": 1,
                 "compute_output": 1, "cache_hit": 0, "cache_miss": 0}:
        problems.append(f"one success and one failure count as {grown}")
    if after[1]["inference_count"] - before[1]["inference_count"] != 1:
        problems.append("inference_count: expected one more")
    if read("posembed") != other:
        problems.append("another model's statistics have changed")
    stages = sum(after[0][key]["ns"] for key in ("queue", "compute_input", "compute_infer",
                                                "compute_output"))
    if stages > after[0]["success"]["ns"]:
        problems.append(f"stages take {stages} ns of {after[0]['success']['ns']}")
    return problems


# --- model control -------------------------------------------------------------------------------


def table(rows, dim):
    """The file of a posembed model of zeros."""
    size = 4 * rows * dim
    header = json.dumps({"embedding.weight": {"dtype": "F32", "shape": [rows, dim],
                                    "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def files(**versions):
    return {f"file:{version[1:]}/model.safetensors": base64.b64encode(content).decode()
            for version, content in versions.items()}


# Rows: what the message says, the parameters. All are 400.
LOAD_REFUSALS = [
    ("parameters.config: expected JSON in a text", {"config": {}}),
    ("parameters.config", {"config": "{"}),
    ("parameters.config", {"config": '{"unheard_of": 1}'}),
    ("parameters.config", {"config": '{"max_batch_rows": 0}'}),
    ("file:1/weights", {"file:1/weights": ""}),
    ("file:0/model.safetensors", {"file:0/model.safetensors": ""}),
    ("file:1/model.safetensors", {"file:1/model.safetensors": 1}),
    ("file:1/model.safetensors", {"file:1/model.safetensors": "????"}),
    ("failed to load 'compress'", {"file:1/model.safetensors": "AAAA"}),
]


def index_of(contract, daemon, problems, **fields):
    entries = expect(contract, daemon, "POST", INDEX, problems, **body_of(**fields))
    return {(entry["name"], entry["version"]): (entry["state"], entry["reason"])
            for entry in entries}


def test_model_control(contract, daemon):
    """A model goes and comes back; a bad change leaves it as it was, with the reason told."""
    problems = []
    ask = {"params": {"model": "compress"}}
    for path, status in [(UNLOAD, 404), (READY, 404), (LOAD, 200), (READY, 200)]:
        if path == UNLOAD:
            expect(contract, daemon, "POST", UNLOAD, problems, **ask)
            if ("compress", "") not in index_of(contract, daemon, problems):
                problems.append("index: expected compress without a version")
            if ("compress", "") in index_of(contract, daemon, problems, ready=True):
                problems.append("index: expected none but those that are ready")
        method = "GET" if path == READY else "POST"
        expect(contract, daemon, method, path, problems, status=status, **ask)
    bad = body_of(parameters=files(v1=b"no weights"))
    refused = expect(contract, daemon, "POST", LOAD, problems, status=400, **ask, **bad)
    state, reason = index_of(contract, daemon, problems)["compress", "1"]
    if state != "READY" or not reason or reason not in refused["error"]:
        problems.append(f"index: {state}, {reason}; the load was refused with {refused}")
    expect(contract, daemon, "GET", READY, problems, **ask)
    expect(contract, daemon, "POST", LOAD, problems, **ask, body=b"")
    if index_of(contract, daemon, problems)["compress", "1"] != ("READY", ""):
        problems.append("index: expected no reason after a load that went well")
    for body in (b"[]", b"{", b'{"parameters": 1}'):
        expect(contract, daemon, "POST", LOAD, problems, status=400, **ask, body=body)
    for body in (b"[]", b"{"):
        expect(contract, daemon, "POST", UNLOAD, problems, status=400, **ask, body=body)
        expect(contract, daemon, "POST", INDEX, problems, status=400, body=body)
    return problems


def test_load_refusals(contract, daemon):
    for reason, parameters in LOAD_REFUSALS:
        yield from contract.refuse(daemon, LOAD, 400, reason, params={"model": "compress"},
                                   **body_of(parameters=parameters))
    unknown = "Request for unknown model: "
    for name, reason in [("nobody", unknown), ("..", unknown), ("x" * 129, unknown),
                         ("no/body", "no such route"), ("x" * 256, "no such route")]:
        for path in (LOAD, UNLOAD):
            yield from contract.refuse(daemon, path, 404, reason, params={"model": name})


def test_load_files(contract, daemon):
    """A model of files in the request: its versions and no others."""
    problems = []
    ask = {"params": {"model": "of-a-request"}}
    content = files(v1=table(2, 3), v4=table(5, 3))
    expect(contract, daemon, "POST", LOAD, problems, **ask,
           **body_of(parameters={"config": '{"description": "zeros"}', **content}))
    page = expect(contract, daemon, "GET", MODEL, problems, **ask)
    if page.get("versions") != ["1", "4"]:
        problems.append(f"expected the versions 1 and 4, got {page}")
    answer = expect(contract, daemon, "POST", INFER, problems, **ask, **infer(
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}))
    if answer.get("outputs", [{}])[0].get("data") != [1, 2, 3]:
        problems.append(f"zeros added to 1, 2 and 3: {answer}")
    expect(contract, daemon, "POST", UNLOAD, problems, **ask)
    return problems


# --- settings ------------------------------------------------------------------------------------


def test_logging(contract, daemon):
    """Each setting, and back."""
    problems = []
    usual = expect(contract, daemon, "GET", LOGGING, problems)
    for change in ({"log_info": False}, {"log_warning": False}, {"log_verbose_level": 1},
                   {"log_verbose_level": 0}, {"log_warning": True, "log_info": True}):
        page = expect(contract, daemon, "POST", LOGGING, problems, **body_of(**change))
        if any(page.get(key) != value for key, value in change.items()):
            problems.append(f"after {change}: {page}")
    if expect(contract, daemon, "GET", LOGGING, problems) != usual:
        problems.append(f"expected {usual} again")
    for change in ({"log_error": False}, {"log_info": 1}, {"log_verbose_level": "1"},
                   {"log_file": "/tmp/x"}, {"log_format": "ISO8601"}, {"unheard_of": True}):
        expect(contract, daemon, "POST", LOGGING, problems, status=400, **body_of(**change))
    expect(contract, daemon, "POST", LOGGING, problems, status=400, body=b"[]")
    return problems


# --- shared memory -------------------------------------------------------------------------------


def test_shared_memory(contract, daemon):
    """Input and output in one segment, which then shrinks; what is wrong with ranges."""
    problems = []
    name = f"nsad-contract-{os.getpid()}"
    data = packed([0.5, -1.0, 2.0, 0.25], "FP32")

    def place(region, size, **more):
        return {"parameters": {"shared_memory_region": region, "shared_memory_byte_size": size,
                               **more}}

    def ask(status, source, target):
        return expect(contract, daemon, "POST", INFER, problems, status=status, **infer(
            scores(**source), outputs=[{"name": "indices", **target}]))

    with segment(name, bytes(8) + data + bytes(40)) as path:
        for region, offset, size in [("in", 8, 16), ("out", 24, 32)]:
            expect(contract, daemon, "POST", REGISTER, problems, params={"region": region},
                   **body_of(key=f"/{name}", offset=offset, byte_size=size))
        listed = expect(contract, daemon, "GET", REGIONS, problems)
        if [region["name"] for region in listed] != ["in", "out"]:
            problems.append(f"expected in and out, got {listed}")
        answer = ask(200, place("in", 16), place("out", 16, shared_memory_offset=8))
        if answer["outputs"][0].get("parameters", {}).get("shared_memory_byte_size") != 8:
            problems.append(f"expected 8 bytes in the region: {answer}")
        if path.read_bytes()[32:40] != packed([2], "INT64"):
            problems.append(f"the segment has {path.read_bytes()}")
        ask(400, place("in", 16), place("out", 7))
        ask(400, place("in", 16), place("out", 8, shared_memory_offset=25))
        ask(400, place("in", 12), place("out", 8))
        ask(400, place("in", 16, shared_memory_offset=1), place("out", 8))
        ask(400, place("in", 16, shared_memory_offset=2**63 - 1), place("out", 8))
        ask(400, place("nowhere", 16), place("out", 8))
        os.truncate(path, 20)
        ask(400, place("in", 16), {})
        ask(400, {}, place("out", 8))
        problems += daemon.alive()
    expect(contract, daemon, "POST", UNREGISTER, problems, params={"region": "in"})
    ask(400, place("in", 16), {})
    for method in ("GET", "HEAD"):
        expect(contract, daemon, method, REGION, problems, status=404, params={"region": "in"})
    expect(contract, daemon, "POST", UNREGISTER_ALL, problems)
    if expect(contract, daemon, "GET", REGIONS, problems) != []:
        problems.append("expected no regions")
    return problems


def test_registration_refusals(contract, daemon):
    name = f"nsad-contract-{os.getpid()}"
    with segment(name, bytes(64)):
        good = {"key": f"/{name}", "offset": 0, "byte_size": 64}
        for reason, change in [
            ("key: expected", {"key": None}),
            ("key: expected", {"key": ""}),
            ("key: expected", {"key": "/"}),
            ("key: expected", {"key": f"/../shm/{name}"}),
            ("key: cannot open", {"key": f"/{name}-not"}),
            ("offset: expected", {"offset": -1}),
            ("offset: expected", {"offset": "0"}),
            ("expected offset + byte_size", {"offset": 1}),
            ("expected offset + byte_size", {"offset": 2**63 - 1}),
            ("byte_size: expected", {"byte_size": 0}),
            ("byte_size: expected", {"byte_size": None}),
            ("expected offset + byte_size", {"byte_size": 65}),
            ("expected offset + byte_size", {"byte_size": 2**63 - 1}),
            ("malformed JSON", {"byte_size": 2**64}),
        ]:
            yield from contract.refuse(daemon, REGISTER, 400, reason,
                                       **body_of(**{**good, **change}))
        yield from contract.refuse(daemon, REGISTER, 400, "key: expected", body=b"")
        yield from contract.refuse(daemon, REGISTER, 400, "expected a JSON object", body=b"[]")
        contract.ask(daemon, "POST", REGISTER, **body_of(**good))
        yield from contract.refuse(daemon, REGISTER, 400, "already registered", **body_of(**good))
        contract.ask(daemon, "POST", UNREGISTER)


# --- a server without these ----------------------------------------------------------------------


def test_switched_off(contract, nsad):
    """501, with the option that would help, and the extension not listed."""
    document = contract.document
    with Daemon(nsad) as daemon:
        for path, method, _ in document.operations():
            if is_oip(path) and 501 in document.responses(path, method):
                reason = ("neither" if 200 not in document.responses(path, method)
                          else "--allow-client-shm" if path.startswith(SHARED)
                          else "--model-control explicit")
                yield from contract.refuse(daemon, path, 501, reason, method=method, body=b"{}")
        server = json.loads(contract.ask(daemon, "GET", "/v2").body)
        if "system_shared_memory" in server["extensions"]:
            yield f"expected no system_shared_memory: {server}"
        region = {"shared_memory_region": "in", "shared_memory_byte_size": 16}
        yield from contract.refuse(daemon, INFER, 400, "--allow-client-shm",
                                   **infer(scores(parameters=region)))


TESTS = [
    ("/v2 knows no unknown models", test_unknown_models),
    ("/v2 keeps statistics", test_statistics),
    ("models come and go by requests", test_model_control),
    ("bad models are refused", test_load_refusals),
    ("models are loaded from requests", test_load_files),
    ("the log is set by requests", test_logging),
    ("tensors are in shared memory", test_shared_memory),
    ("bad regions are refused", test_registration_refusals),
]
