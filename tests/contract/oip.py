"""Inference by the Open Inference Protocol: what it takes and gives, and what it refuses."""
import gzip
import json
import zlib

import numpy

from checks import UNPACK
from document import JSON, RAW

INFER_PATHS = ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"]
HEADER = "Inference-Header-Content-Length"

# The numbers of the tensors below: in each datatype, and exact in all.
SCORES = [0.5, -1.0, 2.0, 0.25]


def infer_of(large=False):
    """A request for select with bytes behind the JSON; one that is not cheap."""
    size = 200000 if large else 4
    return mixed([scores(shape=[1, size], parameters={"binary_data_size": 4 * size})],
                 bytes(4 * size), parameters={"num_selected_blocks": 1})


def infer(*inputs, **fields):
    """JSON throughout, for one block of each row unless `fields` say otherwise."""
    fields = {"parameters": {"num_selected_blocks": 1}, **fields}
    return {"body": json.dumps({"inputs": inputs, **fields}).encode()}


def mixed(inputs, behind, **fields):
    body = infer(*inputs, **fields)["body"]
    return {"headers": {HEADER: len(body)}, "body": body + behind}


def scores(**changes):
    """An input of select, with its numbers in JSON unless `changes` have them elsewhere."""
    value = {"name": "scores", "datatype": "FP32", "shape": [1, 4], "data": SCORES, **changes}
    if "parameters" in changes and "data" not in changes:
        del value["data"]
    return {key: value for key, value in value.items() if value is not None}


def count(**changes):
    """The number of blocks as an input."""
    return {"name": "num_selected_blocks", "datatype": "INT64", "shape": [1], "data": [1],
            **changes}


def packed(values, datatype):
    """The elements of a binary tensor."""
    if datatype == "BF16":
        return (numpy.array(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    kind = {"FP32": "<f4", "FP16": "<f2", "FP64": "<f8", "INT64": "<i8"}[datatype]
    return numpy.array(values, kind).tobytes()


# --- refusals ------------------------------------------------------------------------------------

BYTES = {"parameters": {"binary_data_size": 16}}
REGION = {"shared_memory_region": "nowhere", "shared_memory_byte_size": 16}
NO_COUNT = {"parameters": {}}
NO_MODEL = "Request for unknown model: "


def bad_header(value):
    return {"headers": {HEADER: value}, "body": infer(scores())["body"]}


def bad_output(**changes):
    return infer(scores(), outputs=[{"name": "values", **changes}])


# Rows: what the message says, the request. All are 400.
REFUSALS = [
    # JSON
    ("expected a JSON object, got nothing", {"body": b""}),
    ("malformed JSON", {"body": b'{"inputs": ['}),
    ("malformed JSON", {"body": b'{"inputs": [], "inputs": []}'}),
    ("expected a JSON object", {"body": b"[]"}),
    ("nested deeper", {"body": b'{"x": ' + b"[" * 70 + b"]" * 70 + b"}"}),
    ("more than 8 arrays", infer(*[scores()] * 9)),
    ("id: expected a text", infer(scores(), id=7)),
    # the header that says where the JSON ends
    (f"{HEADER}: expected", bad_header("soon")),
    (f"{HEADER}: expected", bad_header("-1")),
    (f"{HEADER}: expected", bad_header("1e2")),
    (f"{HEADER}: expected", bad_header("1000")),
    (f"{HEADER}: expected", bad_header("99999999999999999999999")),
    ("malformed JSON", bad_header("20")),
    ("body: expected a multiple of 4 bytes, got 5", {"headers": {HEADER: 0}, "body": bytes(5)}),
    # inputs
    ("inputs: expected an array", infer(inputs={"name": "scores"})),
    ("inputs: expected 'scores'", infer()),
    ("inputs[0]: expected an object", infer(5)),
    ("inputs[0].name: expected a text", infer(scores(name=None))),
    ("inputs[0]: unexpected input 'x'", infer(scores(name="x"))),
    ("inputs[1]: 'scores' is given twice", infer(scores(), scores())),
    ("inputs[0].datatype: expected a text", infer(scores(datatype=None))),
    ("inputs[0].datatype: expected FP32", infer(scores(datatype="BYTES"))),
    ("inputs[0].datatype: expected FP32", infer(scores(datatype="INT64"))),
    ("inputs[0].shape: expected an array", infer(scores(shape=None))),
    ("inputs[0].shape: expected an array", infer(scores(shape=[1] * 33))),
    ("inputs[0].shape: expected integers", infer(scores(shape=[-1, 4]))),
    ("inputs[0].shape: expected integers", infer(scores(shape=[1.5]))),
    ("expected at most", infer(scores(shape=[2**62, 2**62]))),
    ("expected at most", infer(scores(shape=[2**62, 2], datatype="FP64"))),
    ("malformed JSON", infer(scores(shape=[2**70]))),
    ("inputs[0].parameters: expected an object", infer(scores(parameters=[]))),
    ("scores: expected shape", infer(scores(shape=[], data=[1]))),
    # elements in exactly one place
    ("inputs[0]: expected exactly one of", infer(scores(data=None))),
    ("inputs[0]: expected exactly one of", infer(scores(data=SCORES, **BYTES))),
    ("inputs[0]: expected exactly one of", infer(scores(data=SCORES, parameters=REGION))),
    ("inputs[0]: expected exactly one of",
     infer(scores(parameters={**BYTES["parameters"], **REGION}))),
    # numbers
    ("data: expected an array of numbers", infer(scores(data="0.5"))),
    ("inputs[0].data: expected 4 numbers", infer(scores(data=SCORES[1:]))),
    ("inputs[0].data[1]: expected 2 numbers", infer(scores(shape=[2, 2], data=[[1, 2], [3]]))),
    ("inputs[0].data[1]: expected a number", infer(scores(data=[1, "2", 3, 4]))),
    ("inputs[0].data[3]: 1e39 does not fit float32",
     {"body": infer(scores())["body"].replace(b"0.25", b"1e39")}),
    ("inputs[0].data[2]: 65520 does not fit float16",
     infer(scores(datatype="FP16", data=[1, 2, 65520, 4]))),
    ("inputs[1].data[0]: 9223372036854775808 does not fit int64",
     infer(scores(), count(data=[2**63]), **NO_COUNT)),
    ("inputs[1].data[0]", infer(scores(), count(data=[1.5]), **NO_COUNT)),
    # bytes
    ("inputs[0]: expected 16 bytes behind the JSON, got 0", infer(scores(**BYTES))),
    ("inputs[0]: expected 16 bytes behind the JSON, got 15", mixed([scores(**BYTES)], bytes(15))),
    ("expected its end behind the inputs, got 1 more", mixed([scores(**BYTES)], bytes(17))),
    ("expected its end behind the inputs, got 16 more", mixed([scores()], bytes(16))),
    ("inputs[0].binary_data_size: expected 16 bytes",
     mixed([scores(parameters={"binary_data_size": 12})], bytes(12))),
    ("inputs[0].binary_data_size: expected an integer",
     mixed([scores(parameters={"binary_data_size": -16})], bytes(16))),
    ("inputs[0].binary_data_size: expected an integer",
     mixed([scores(parameters={"binary_data_size": "16"})], bytes(16))),
    # parameters
    ("parameters: expected an object", infer(scores(), parameters=[])),
    ("parameters.binary_data_output: expected", infer(scores(), parameters={
        "num_selected_blocks": 1, "binary_data_output": 1})),
    ("parameters.timeout: expected", infer(scores(), parameters={"timeout": -1})),
    ("parameters.timeout: expected", infer(scores(), parameters={"timeout": "1s"})),
    ("num_selected_blocks: expected an integer, got none", infer(scores(), **NO_COUNT)),
    ("num_selected_blocks: expected 0 to 4", infer(scores(), parameters={
        "num_selected_blocks": 5})),
    ("num_selected_blocks: expected an integer", infer(scores(), parameters={
        "num_selected_blocks": 0.5})),
    ("num_selected_blocks: given twice", infer(scores(), count())),
    ("inputs[1]: expected INT64 [1]", infer(scores(), count(datatype="FP32"), **NO_COUNT)),
    ("inputs[1]: expected INT64 [1]",
     infer(scores(), count(shape=[2], data=[1, 2]), **NO_COUNT)),
    ("X-Request-Timeout-Ms: expected",
     {"headers": {"X-Request-Timeout-Ms": "soon"}, "body": infer(scores())["body"]}),
    # outputs
    ("outputs: expected an array", infer(scores(), outputs="values")),
    ("outputs[0]: expected an object", infer(scores(), outputs=["values"])),
    ("outputs[0].name: expected a text", bad_output(name=1)),
    ("outputs[0]: unexpected output 'y'", bad_output(name="y")),
    ("outputs[1]: 'values' is given twice",
     infer(scores(), outputs=[{"name": "values"}, {"name": "values"}])),
    ("outputs[0].parameters: expected an object", bad_output(parameters=1)),
    ("outputs[0].binary_data: expected", bad_output(parameters={"binary_data": 1})),
    ("outputs[0].classification: expected none", bad_output(parameters={"classification": 2})),
    # shared memory
    ("region 'nowhere': not registered", infer(scores(parameters=REGION))),
    ("outputs[0].shared_memory_byte_size: expected",
     bad_output(parameters={"shared_memory_region": "nowhere"})),
    ("inputs[0].shared_memory_offset: expected",
     infer(scores(parameters={**REGION, "shared_memory_offset": -1}))),
    ("inputs[0].shared_memory_region: expected a text",
     infer(scores(parameters={**REGION, "shared_memory_region": 1}))),
    ("region 'nowhere': not registered", bad_output(parameters=REGION)),
    # encodings
    ("Content-Encoding: expected", {"headers": {"Content-Encoding": "br"}, "body": b"{}"}),
    ("compressed body: ", {"headers": {"Content-Encoding": "gzip"}, "body": b"{}"}),
    ("compressed body: ", {"headers": {"Content-Encoding": "deflate"}, "body": gzip.compress(b"{}")}),
    # models
    ("x: expected shape [..., 4, 64]", {"params": {"model": "compress"}, **infer(
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]})}),
    ("offset: expected", {"params": {"model": "posembed"}, **infer(
        {"name": "x", "datatype": "FP32", "shape": [0, 1, 512], "data": []},
        parameters={"offset": 32})}),
]


def test_refusals(contract, daemon, path):
    for reason, request in REFUSALS:
        yield from contract.refuse(daemon, path, 400, reason, **request)
    good = infer(scores())
    late = {**good, "headers": {"X-Request-Timeout-Ms": "0"}}
    yield from contract.refuse(daemon, path, 504, "deadline", **late)
    yield from contract.refuse(daemon, path, 504, "deadline",
                               **infer(scores(), parameters={"num_selected_blocks": 1,
                                                             "timeout": 1}))
    yield from contract.refuse(daemon, path, 404, NO_MODEL + "'nobody'",
                               params={"model": "nobody"}, **good)
    if "{version}" in path:
        yield from contract.refuse(daemon, path, 404, NO_MODEL + "'select' version 9",
                                   params={"version": 9}, **good)
        for version in ("first", "0", "01", "-1", "4294967296"):
            yield from contract.refuse(daemon, path, 400, "version: expected",
                                       params={"version": version}, **good)


# --- what is taken and given ---------------------------------------------------------------------


def ask(contract, daemon, path, request, problems):
    """The answer; what is wrong with it goes to `problems`."""
    answer = contract.ask(daemon, "POST", path, **request)
    problems += contract.check(path, "POST", answer)
    if answer.status != 200:
        problems.append(f"expected 200, got {answer.status}: {answer.body[:300]!r}")
    return answer


def outputs_of(answer):
    """{name: (its description, its elements as bytes)} in the answer's order."""
    headers = dict(answer.headers)
    body = UNPACK.get(headers.get("Content-Encoding"), bytes)(answer.body)
    size = int(headers.get(HEADER, len(body)))
    found = {}
    for output in json.loads(body[:size])["outputs"]:
        if "data" in output:
            data = packed(output["data"], output["datatype"])
        else:
            end = size + output["parameters"]["binary_data_size"]
            data, size = body[size:end], end
        found[output["name"]] = output, data
    return found


def test_forms(contract, daemon, path):
    """Each datatype as numbers, flat or nested, and as bytes; outputs in each form and order."""
    problems = []
    for datatype in ("FP32", "FP16", "BF16", "FP64"):
        data = packed(SCORES, datatype)
        for inputs, behind in [
            ([scores(datatype=datatype)], b""),
            ([scores(datatype=datatype, data=[[[0.5, -1.0]], [[2.0, 0.25]]])], b""),
            ([scores(datatype=datatype, parameters={"binary_data_size": len(data)})], data),
            ([count(), scores(datatype=datatype, parameters={"binary_data_size": len(data)})],
             data),
        ]:
            known = {} if len(inputs) > 1 else {"num_selected_blocks": 1}
            for binary in (None, False, True):
                parameters = known | ({} if binary is None else {"binary_data_output": binary})
                answer = ask(contract, daemon, path, mixed(inputs, behind, parameters=parameters),
                             problems)
                given = outputs_of(answer)
                if list(given) != ["indices", "values"] or (
                        given["indices"][1], given["values"][1]) != (
                        packed([2], "INT64"), packed([2.0], datatype)):
                    problems.append(f"{datatype}, {inputs}: {answer.body!r}")
                if dict(answer.headers)["Content-Type"] != (RAW if binary else JSON):
                    problems.append(f"{binary}: {answer.headers}")
    return problems


def test_choice(contract, daemon, path):
    """The outputs listed, in that order, each in its own form or that of the request."""
    problems = []
    for all_binary in (False, True):
        for own in (None, False, True):
            for names in (["values", "indices"], ["indices"], ["values"]):
                own_form = {} if own is None else {"parameters": {"binary_data": own}}
                request = infer(scores(), outputs=[{"name": name, **own_form} for name in names],
                                parameters={"num_selected_blocks": 2,
                                            "binary_data_output": all_binary})
                given = outputs_of(ask(contract, daemon, path, request, problems))
                binary = all_binary if own is None else own
                if list(given) != names or any(("data" in output) == binary
                                               for output, _ in given.values()):
                    problems.append(f"{names}, {own}, {all_binary}: {given}")
    return problems


def test_tolerance(contract, daemon, path):
    """What clients send beside the request, and what doesn't matter."""
    problems = []
    good = infer(scores())
    expected = outputs_of(ask(contract, daemon, path, good, problems))
    for request in [
        {**good, "headers": {"content-type": "text/plain", "accept": "text/html"}},
        {**good, "headers": {HEADER: len(good["body"])}},
        {**good, "headers": {HEADER.lower(): len(good["body"])}},
        {**good, "query": {"unheard_of": 1}},
        {**good, "chunks": True},
        infer(scores(unheard_of=1), id="", unheard_of=[1], outputs=[], parameters={
            "num_selected_blocks": 1, "priority": 3, "sequence_id": 7, "sequence_start": True,
            "sequence_end": False, "tenant": "blue", "timeout": 0}),
    ]:
        if outputs_of(ask(contract, daemon, path, request, problems)) != expected:
            problems.append(f"another answer to {request}")
    target = contract.target(path, params={"model": "select"}).replace("select", "%73%65lect")
    answer = contract.ask(daemon, "POST", target, **good)
    problems += contract.check(path, "POST", answer)
    if answer.status != 200:
        problems.append(f"{target}: expected 200, got {answer.status}")
    return problems


def test_encodings(contract, daemon, path):
    """Compressed both ways; the header measures what is decompressed, there and back."""
    problems = []
    for binary in (False, True):
        parameters = {"num_selected_blocks": 600, "binary_data_output": binary}
        request = mixed([scores(shape=[1, 1000], parameters={"binary_data_size": 4000})],
                        bytes(4000), parameters=parameters)
        expected = outputs_of(ask(contract, daemon, path, request, problems))
        for encoding, pack in [("gzip", gzip.compress), ("deflate", zlib.compress)]:
            headers = {**request["headers"], "Content-Encoding": encoding,
                       "Accept-Encoding": encoding}
            answer = ask(contract, daemon, path, {"headers": headers,
                                                  "body": pack(request["body"])}, problems)
            given = dict(answer.headers)
            if (given.get("Content-Encoding"), given.get("Vary")) != (encoding, "Accept-Encoding"):
                problems.append(f"{encoding}: {given}")
            if outputs_of(answer) != expected:
                problems.append(f"{encoding}, {binary}: another answer than to a plain body")
    return problems


TESTS = [
    ("refuses what doesn't fit", test_refusals),
    ("takes and gives each form of tensors", test_forms),
    ("gives the outputs that are asked for", test_choice),
    ("takes what clients send besides", test_tolerance),
    ("takes and gives compressed bodies", test_encodings),
]
