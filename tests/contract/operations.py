"""The operations of /v1: what they take and give, and what they refuse."""
import gzip
import io
import json
import math
import zlib

import numpy

from checks import UNPACK
from document import JSON, NPY, RAW


def npy(array):
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


def json_of(**fields):
    return {"headers": {"Content-Type": JSON}, "body": json.dumps(fields).encode()}


def text_of(text, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"headers": {"Content-Type": JSON, **headers}, "body": text.encode()}


# What each operation takes at the least; the shape of a tensor that is not cheap.
GOOD = {
    "/v1/select": ({"num_selected_blocks": 1}, (1, 4), (1, 200000)),
    "/v1/compress": ({}, (0, 4, 64), (512, 4, 64)),
    "/v1/posembed": ({}, (0, 3, 512), (600, 1, 512)),
}


def raw_of(path, large=False, **headers):
    query, small_shape, large_shape = GOOD[path]
    shape = large_shape if large else small_shape
    return {
        "query": {**query, "shape": ",".join(map(str, shape)), "dtype": "float32"},
        "headers": {"Content-Type": RAW, **headers},
        "body": bytes(4 * math.prod(shape)),
    }


def refusals(path):
    """(status, code, request) that the operation must refuse so."""
    query, shape, _ = GOOD[path]
    good = npy(numpy.zeros(shape, "<f4"))
    long = "[" * 33 + "]" * 33

    def npy_of(body, more=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return {"query": {**query, **(more or {})}, "headers": {"Content-Type": NPY, **headers},
                "body": body}

    def raw(more, body=b"", **headers):
        headers = {"Content-Type": RAW, **headers}
        return {"query": {**query, **more}, "headers": headers, "body": body}

    yield 400, "malformed_body", text_of("")
    yield 400, "malformed_body", text_of('{"input": [1, 2]')
    yield 400, "malformed_body", text_of('{"input": [1, 2], "input": [1, 2]}')
    yield 400, "malformed_body", text_of('{"input": [1, .5]}')
    yield 400, "malformed_body", text_of('{"input": [1]}', Content_Encoding="gzip")
    yield 400, "malformed_body", npy_of(good[:20])
    yield 400, "malformed_body", npy_of(b"PK" + good)
    yield 400, "limit_exceeded", text_of('{"input": %s}' % long)
    yield 400, "invalid_argument", text_of("[1]")
    yield 400, "invalid_argument", json_of(input="x")
    yield 400, "invalid_argument", json_of()
    yield 400, "invalid_argument", json_of(input=[[1, 2], [3]])
    yield 400, "invalid_argument", json_of(input=[1, None])
    yield 400, "invalid_argument", text_of('{"input": [1e39]}')
    yield 400, "invalid_argument", json_of(input=[], unheard_of=1)
    yield 400, "invalid_argument", json_of(input=[], shape=[-1])
    yield 400, "invalid_argument", json_of(input=[1, 2], shape=[3])
    yield 400, "invalid_argument", json_of(input=[], flat="yes")
    yield 400, "invalid_argument", json_of(input=[], nonfinite="nan")
    yield 400, "invalid_argument", json_of(input=[], version=0)
    yield 400, "invalid_argument", {"query": {"model": "a"}, **json_of(input=[], model="a")}
    yield 400, "invalid_argument", {"query": {"shape": "0"}, **json_of(input=[])}
    yield 400, "invalid_argument", npy_of(good, {"unheard_of": 1})
    yield 400, "invalid_argument", npy_of(good, {"shape": "1"})
    yield 400, "invalid_argument", npy_of(npy(numpy.float32(1)))
    yield 400, "invalid_argument", npy_of(good, X_Request_Timeout_Ms="soon")
    yield 400, "invalid_argument", raw({"dtype": "float32"})
    yield 400, "invalid_argument", raw({"shape": "1"})
    yield 400, "invalid_argument", raw({"shape": "1,", "dtype": "float32"})
    yield 400, "invalid_argument", raw({"shape": "2", "dtype": "float32"}, b"abc")
    yield 400, "invalid_argument", raw({"shape": "2", "dtype": "float33"}, b"abc")
    yield 400, "invalid_argument", raw_of(path, **{"X-Tensor-Shape": "1"})
    yield 404, "unknown_model", npy_of(good, {"model": "nobody"})
    yield 404, "unknown_model", npy_of(good, {"version": 4000000000})
    yield 406, "not_acceptable", npy_of(good, Accept="text/html")
    yield 406, "not_acceptable", npy_of(good, Accept="application/*;q=0, text/*")
    yield 415, "unsupported_media_type", npy_of(good, Content_Type="text/plain")
    yield 415, "unsupported_media_type", {"body": b"neither"}
    yield 415, "unsupported_encoding", npy_of(good, Content_Encoding="br")
    yield 415, "unsupported_type", npy_of(npy(numpy.zeros(shape, "<i8")))
    yield 415, "unsupported_type", npy_of(npy(numpy.zeros((4, 4), ">f4")))
    yield 415, "unsupported_type", npy_of(npy(numpy.zeros((4, 4), "<f4", order="F")))
    yield 415, "unsupported_type", npy_of(npy(numpy.array([None])))
    yield 504, "deadline_exceeded", raw_of(path, **{"X-Request-Timeout-Ms": "0"})


SELECT_REFUSALS = [
    (400, "invalid_argument", json_of(input=[1])),
    (400, "invalid_argument", json_of(input=[1], num_selected_blocks=-1)),
    (400, "invalid_argument", json_of(input=[1], num_selected_blocks=2)),
    (400, "invalid_argument", json_of(input=[1], num_selected_blocks=1.5)),
    (400, "invalid_argument", json_of(input=[1], num_selected_blocks=1, return_values=1)),
    (400, "invalid_argument", json_of(input=[1], num_selected_blocks=1, model="compress")),
    (400, "invalid_argument", {"query": {"num_selected_blocks": 1, "return_values": "true"},
                               "headers": {"Content-Type": NPY},
                               "body": npy(numpy.ones(3, "<f4"))}),
]
COMPRESS_REFUSALS = [
    (400, "invalid_argument", json_of(input=[[1, 2, 3]])),
    (400, "invalid_argument", json_of(input=[], offset=1)),
]
POSEMBED_REFUSALS = [
    (400, "invalid_argument", json_of(input=[], shape=[1, 0, 511])),
    (400, "invalid_argument", json_of(input=[], shape=[0, 30, 512], offset=3)),
    (400, "invalid_argument", json_of(input=[], shape=[0, 30, 512], offset=-1)),
]
OWN_REFUSALS = {"/v1/select": SELECT_REFUSALS, "/v1/compress": COMPRESS_REFUSALS,
                "/v1/posembed": POSEMBED_REFUSALS}


def test_refusals(contract, daemon, path):
    for status, code, request in [*refusals(path), *OWN_REFUSALS[path]]:
        yield from contract.refuse(daemon, path, status, code, **request)


def test_fields(contract, daemon, path):
    """The fields that the server names when it meets another are those of the document."""
    schema = contract.document.operation(path, "POST")["requestBody"]["content"][JSON]["schema"]
    queries = [parameter["name"] for parameter in contract.document.parameters(path, "POST")
               if parameter["in"] == "query"]
    for request, listed in [
        (json_of(input=[], unheard_of=1), set(contract.document.resolve(schema)["properties"])),
        ({"query": {"unheard_of": 1}, **json_of(input=[])}, set(queries)),
    ]:
        message = json.loads(contract.ask(daemon, "POST", path, **request).body)["error"]
        named = set(message.partition("expected ")[2].split(", "))
        if named != listed:
            yield f"{path}: the server takes {sorted(named)}, the document has {sorted(listed)}"


def test_encodings(contract, daemon, path):
    """Bodies compressed in each way that the document has, there and back."""
    request = raw_of(path, large=True)
    raw = request["body"]
    plain = contract.ask(daemon, "POST", path, **request)
    for encoding in contract.document.at("#/components/parameters/Content-Encoding/schema/enum"):
        packed = (raw if encoding == "identity"
                  else zlib.compress(raw) if encoding == "deflate" else gzip.compress(raw))
        request["body"] = packed
        accept = "deflate" if encoding == "deflate" else "gzip"
        request["headers"] |= {"Content-Encoding": encoding, "Accept-Encoding": accept}
        answer = contract.ask(daemon, "POST", path, **request)
        yield from contract.check(path, "POST", answer)
        given = dict(answer.headers)
        body = answer.body
        if "Content-Encoding" in given:
            body = UNPACK[given["Content-Encoding"]](body)
        if answer.status != 200 or body != plain.body:
            yield f"{path}: {encoding}: {answer.status}, or another answer than to a plain body"
        if given.get("Content-Encoding") not in (None, accept):
            yield f"{path}: {accept}: Content-Encoding: {given['Content-Encoding']}"
        if len(body) >= 1024 and given.get("Vary") != "Accept, Accept-Encoding":
            yield f"{path}: {encoding}: Vary: {given.get('Vary')}"


def test_formats(contract, daemon, path):
    """Each format of the body answered in each."""
    query, shape, _ = GOOD[path]
    zeros = numpy.zeros(shape, "<f4")
    flat = {"input": [0.0] * zeros.size, "shape": list(shape)}
    raw = {"shape": ",".join(map(str, shape)), "dtype": "float32"}
    for sent, body, more in [(JSON, json.dumps(flat).encode(), {}), (NPY, npy(zeros), {}),
                             (RAW, zeros.tobytes(), raw)]:
        for accepted in (JSON, NPY, RAW):
            for content_type in {sent, None if sent != RAW else sent}:
                headers = {"Accept": accepted, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
                if content_type:
                    headers["Content-Type"] = content_type
                answer = contract.ask(daemon, "POST", path, {**query, **more}, headers, body)
                yield from contract.check(path, "POST", answer)
                got = dict(answer.headers).get("Content-Type")
                if answer.status != 200 or got != accepted:
                    yield f"{path}: {sent} to {accepted}: {answer.status} in {got}"
