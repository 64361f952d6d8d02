"""What is checked of a server's answers by the document, and what is asked by it."""
import collections
import gzip
import io
import json
import math
import re
import urllib.parse
import zlib

import numpy

from daemon import chunked, head_bytes, read_answer
from document import JSON, METHODS, NPY, RAW, example_bytes, example_value, is_oip

# What undoes each Content-Encoding of an answer.
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}

# Of every answer, and not the document's business.
TRANSPORT_HEADERS = {"date", "content-length", "connection", "content-type", "transfer-encoding"}

# Differ from one machine, or one moment, to the next.
VOLATILE_KEYS = {"engine", "last_inference", "inference_count", "execution_count", "count", "ns"}

DATATYPE_BYTES = {"FP32": 4, "FP16": 2, "BF16": 2, "FP64": 8, "INT64": 8}

# Two kernels' answers of compress: each within 8 * 2^-24 of the largest output from the true one.
COMPRESS_TOLERANCE = 16 * 2.0**-24

# What cannot be brought about from outside: faults of the server, and a lack of memory.
UNPROVOKED_CODES = {"internal", "out_of_memory"}

# What answers while models load, too.
WITHOUT_MODELS = {"/livez", "/metrics", "/openapi.yaml", "/v2", "/v2/", "/v2/health/live",
                  "/v2/logging"}


def without_models(path):
    return path in WITHOUT_MODELS or "sharedmemory" in path or "trace" in path


def unprovoked(path, status):
    return status == 500 or (status == 503 and without_models(path))


class Contract:
    def __init__(self, document):
        self.document = document
        self.seen = set()  # (path, method, status)
        self.codes = set()
        self.ids = 0

    def new_id(self):
        self.ids += 1
        return f"contract-{self.ids}"

    def target(self, path, query=None, params=None, example=None):
        path = self.document.concrete(path, params, example)
        return path + ("?" + urllib.parse.urlencode(query, safe=",") if query else "")

    def ask(self, daemon, method, path, query=None, headers=None, body=None, chunks=False,
            params=None, example=None):
        """One request on a connection of its own; the answer, unchecked."""
        headers = dict(headers or {})
        headers.setdefault("X-Request-Id", self.new_id())
        if chunks:
            headers["Transfer-Encoding"] = "chunked"
        elif body is not None:
            headers["Content-Length"] = len(body)
        data = b"" if body is None else chunked(body) if chunks else body
        target = self.target(path, query, params, example)
        connection = daemon.send(head_bytes(method, target, headers) + data)
        return read_answer(connection, method, headers["X-Request-Id"])

    # --- what is checked of every answer

    def check(self, path, method, answer):
        """The problems that `answer` has by the document; notes that it was seen."""
        what = f"{method} {path}: {answer.status}"
        responses = self.document.responses(path, method)
        if answer.status not in responses:
            return [f"{what}: not in the document; {answer.body[:200]!r}"]
        self.seen.add((path, method, answer.status))
        response = responses[answer.status]
        problems = self.check_headers(response.get("headers", {}), answer)
        if method != "HEAD":
            problems += self.check_body(response, answer)
        elif answer.body:
            problems.append("HEAD: a body")
        return [f"{what}: {problem}" for problem in problems]

    def check_headers(self, listed, answer):
        listed = {name.lower(): self.document.resolve(header) for name, header in listed.items()}
        given = {name.lower(): value for name, value in answer.headers}
        problems = []
        if len(given) != len(answer.headers):
            problems.append("a header stands twice")
        for name, value in given.items():
            if name in listed:
                schema = self.document.resolve(listed[name]["schema"])
                errors = self.document.errors(schema, header_value(schema, value))
                problems += [f"{name}: {value}: {error}" for error in errors]
            elif name not in TRANSPORT_HEADERS:
                problems.append(f"{name}: not in the document")
        problems += [f"{name}: expected, but missing" for name, header in listed.items()
                     if header.get("required") and name not in given]
        echoed = given.get("x-request-id")
        if answer.request_id and echoed and echoed != answer.request_id:
            problems.append(f"x-request-id: expected {answer.request_id}, got {echoed}")
        return problems

    def check_body(self, response, answer):
        given = {name.lower(): value for name, value in answer.headers}
        if "content" not in response:
            return ["a body"] if answer.body or "content-type" in given else []
        # The refusals of the layer below come without a type.
        media_type = given.get("content-type", "text/html")
        body = answer.body
        if media_type not in response["content"]:
            return [f"Content-Type: {media_type}: not in the document"]
        if "content-encoding" in given:
            body = UNPACK[given["content-encoding"]](body)
        if media_type == JSON:
            value = json.loads(body)
            if isinstance(value, dict) and "code" in value:
                self.codes.add(value["code"])
                if answer.request_id and value.get("request_id") not in (None, answer.request_id):
                    return [f"request_id: expected {answer.request_id}, got {value['request_id']}"]
            return self.document.errors(response["content"][media_type]["schema"], value)
        if media_type == NPY:
            numpy.load(io.BytesIO(body), allow_pickle=False)
        if media_type == RAW and "inference-header-content-length" in given:
            size = int(given["inference-header-content-length"])
            schema = response["content"][JSON]["schema"]
            return self.check_mixed(schema, json.loads(body[:size]), len(body) - size)
        if media_type == RAW:
            shape = [int(dim) for dim in given["x-tensor-shape"].split(",")]
            size = 2 if given["x-tensor-dtype"] == "bfloat16" else numpy.dtype(
                given["x-tensor-dtype"]).itemsize
            if len(body) != math.prod(shape) * size:
                return [f"{len(body)} bytes for {shape} of {size} bytes"]
        elif "x-tensor-shape" in given or "x-tensor-dtype" in given:
            return [f"{media_type} with X-Tensor headers"]
        return []

    def check_mixed(self, schema, value, behind):
        """An answer of the Open Inference Protocol with `behind` bytes behind its JSON."""
        problems = self.document.errors(schema, value)
        total = 0
        for output in value["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size", 0)
            expected = math.prod(output["shape"]) * DATATYPE_BYTES[output["datatype"]]
            if "data" not in output and size != expected:
                problems.append(f"{output}: expected a size of {expected}")
            total += size
        return problems + ([f"{behind} bytes behind {value}"] if behind != total else [])

    # --- routes

    def check_routes(self, daemon):
        text = self.ask(daemon, "GET", "/metrics").body.decode()
        served = collections.defaultdict(set)
        series = r'nsad_http_requests_total{route="([^"]*)",method="(\w+)"'
        for route, method in re.findall(series, text):
            served[route].add(method)
        listed = {path: set(self.document.methods(path)) for path in self.document.root["paths"]}
        served.pop("other")
        served = {path: methods for route, methods in served.items() for path in expansions(route)}
        for path, methods in served.items():
            if path not in listed:
                yield f"{path}: served, but not in the document"
            elif methods - {"OTHER"} != listed[path]:
                yield f"{path}: serves {sorted(methods)}, the document has {sorted(listed[path])}"
        yield from (f"{path}: in the document, but not served" for path in listed
                    if path not in served)

    def check_methods(self, daemon, path):
        listed = self.document.methods(path)
        for method in METHODS:
            answer = self.ask(daemon, method, path, body=b"")
            yield from self.check(path, method, answer)
            refused = {405} if 404 in self.document.responses(path, method) else {404, 405}
            if method in listed and answer.status in refused:
                yield f"{method} {path}: in the document, but answered {answer.status}"
            if method not in listed:
                allowed = dict(answer.headers).get("Allow", "none")
                if answer.status != 405 or allowed != ", ".join(listed):
                    yield (f"{method} {path}: expected 405 that allows {', '.join(listed)}, got "
                           f"{answer.status} that allows {allowed}")
        for method in listed:
            # Any that the answer to another method names is one that the path takes.
            self.seen.add((path, method, 405))

    # --- examples

    def exchanges(self, path, method):
        """(name, request's media type, body) of the examples."""
        item = self.document.operation(path, method)
        if "requestBody" in item:
            for media_type, media in item["requestBody"]["content"].items():
                for name, example in media.get("examples", {}).items():
                    yield name, media_type, example_bytes(media_type, example)
        else:
            for media in self.document.main_content(path, method).values():
                for name in media.get("examples", {}):
                    yield name, None, None

    def expected(self, path, method, name):
        for status, response in self.document.responses(path, method).items():
            for media_type, media in response.get("content", {}).items():
                if name in media.get("examples", {}):
                    return status, media_type, media["examples"][name]
        return None

    def play(self, daemon, path, method, name, media_type, body):
        query, headers = {}, {}
        status, answer_type, example = self.expected(path, method, name)
        value = example_value(answer_type, example)
        if media_type:
            headers["Content-Type"] = media_type
        if isinstance(value, dict) and "request_id" in value:
            headers["X-Request-Id"] = value["request_id"]
        for parameter in self.document.parameters(path, method):
            if parameter["in"] != "path" and name in parameter.get("examples", {}):
                chosen = parameter["examples"][name]["value"]
                text = ",".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)
                (query if parameter["in"] == "query" else headers)[parameter["name"]] = text
        answer = self.ask(daemon, method, path, query, headers, body, example=name)
        given_type = dict(answer.headers).get("Content-Type")
        yield from self.check(path, method, answer)
        if answer.status != status:
            yield f"expected {status}, got {answer.status}: {answer.body[:300]!r}"
        elif given_type != answer_type:
            yield f"Content-Type: expected {answer_type}, got {given_type}"
        elif method != "HEAD":
            tolerance = COMPRESS_TOLERANCE if path == "/v1/compress" else 0
            yield from compare(answer_type, value, answer.body, tolerance)

    # --- refusals

    def refuse(self, daemon, path, status, reason, *, method="POST", **request):
        """
        Ask for what must be refused so; the connection's server must live on. `reason` is the code,
        or under /v2, where there is none, a part of the message.
        """
        answer = self.ask(daemon, method, path, **request)
        problems = self.check(path, method, answer)
        got = f"{answer.status}: {answer.body[:200]!r} to {str(request)[:200]}"
        if answer.status != status:
            problems.append(f"expected {status}, got {got}")
        elif method != "HEAD":
            said = json.loads(answer.body)
            if reason not in said["error"] if is_oip(path) else reason != said["code"]:
                problems.append(f"expected {reason}, got {got}")
        return problems + daemon.alive()

    def check_coverage(self):
        for path, method, _ in self.document.operations():
            for status in self.document.responses(path, method):
                if (path, method, status) not in self.seen and not unprovoked(path, status):
                    yield f"{method} {path}: {status} is in the document, but was never answered"
        enum = self.document.at("#/components/schemas/ErrorCode")["enum"]
        yield from (f"code {code}: never answered" for code in enum
                    if code not in self.codes | UNPROVOKED_CODES)
        yield from (f"code {code}: not in the document" for code in self.codes - set(enum))


def header_value(schema, text):
    """The text of a header as its schema has it."""
    if schema.get("type") == "array":
        return [int(part) for part in text.split(",")] if re.fullmatch(r"[\d,]+", text) else text
    if schema.get("type") == "integer" and re.fullmatch(r"\d+", text):
        return int(text)
    return text


def expansions(route):
    """The paths that a pattern stands for: what is in brackets may be left out."""
    found = re.search(r"\[([^\[\]]*)\]", route)
    if not found:
        return {route}
    parts = (route[:found.start()] + kept + route[found.end():] for kept in (found[1], ""))
    return {path for part in parts for path in expansions(part)}


def compare(media_type, expected, body, tolerance):
    """`tolerance` is for outputs, as a part of the largest of them."""
    if media_type == JSON:
        if tolerance:
            tolerance *= max(map(abs, numpy.ravel(expected.get("output", []))), default=0)
        yield from compare_json("answer", expected, json.loads(body), tolerance)
    elif media_type in (NPY, RAW):
        if body != expected.encode("latin-1"):
            yield f"expected {expected.encode('latin-1')!r}, got {body!r}"
    else:  # an excerpt
        lines = set(body.decode().splitlines())
        yield from (f"no line {line}" for line in expected.splitlines() if line not in lines)


def compare_json(place, expected, got, tolerance):
    if isinstance(expected, dict) and isinstance(got, dict):
        if list(expected) != list(got):
            yield f"{place}: expected the keys {list(expected)}, got {list(got)}"
            return
        for key in expected:
            if key not in VOLATILE_KEYS:
                slack = tolerance if key == "output" else 0
                yield from compare_json(f"{place}.{key}", expected[key], got[key], slack)
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for i, (left, right) in enumerate(zip(expected, got)):
            yield from compare_json(f"{place}[{i}]", left, right, tolerance)
    elif not same(expected, got, tolerance):
        yield f"{place}: expected {expected!r}, got {got!r}"


def same(expected, got, tolerance):
    if isinstance(expected, bool) or isinstance(got, bool) or not (
            isinstance(expected, (int, float)) and isinstance(got, (int, float))):
        return type(expected) is type(got) and expected == got
    if math.isnan(expected) or math.isnan(got):
        return math.isnan(expected) and math.isnan(got)
    if expected == got:
        return math.copysign(1, expected) == math.copysign(1, got)
    return abs(expected - got) <= tolerance
