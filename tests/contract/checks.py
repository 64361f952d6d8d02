"""Holds the answers of a server to the document."""
import collections
import gzip
import io
import json
import math
import re
import urllib.parse
import zlib

import numpy

import oip
from compare import COMPRESS_TOLERANCE, compare
from daemon import chunked, head_bytes, read_answer
from document import (JSON, METHODS, NPY, RAW, concrete, example_bytes, example_value, expand,
                      unnamed)

UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}

# Of every answer, and not the document's business.
TRANSPORT_HEADERS = {"date", "content-length", "connection", "content-type", "transfer-encoding"}

# What cannot be brought about from outside: faults of the server, and a lack of memory.
UNPROVOKED_CODES = {"internal", "out_of_memory", "not_supported"}


def without_models(path):
    """Answered while models load."""
    return path in {"/livez", "/metrics", "/openapi.yaml"} or oip.without_models(path)


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

    def ask(self, daemon, method, path, query=None, headers=None, body=None, chunks=False,
            params=None):
        """One request on a connection of its own; the answer, unchecked. A path of the document
        gets `params`, or its parameters' first examples."""
        if "{" in path:
            path = concrete(self.document, path, params=params)
        headers = dict(headers or {})
        headers.setdefault("X-Request-Id", self.new_id())
        if chunks:
            headers["Transfer-Encoding"] = "chunked"
        elif body is not None:
            headers["Content-Length"] = len(body)
        data = b"" if body is None else chunked(body) if chunks else body
        target = path + ("?" + urllib.parse.urlencode(query, safe=",") if query else "")
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
        # The refusals of the layer below come without a type.
        media_type = given.get("content-type", "text/html")
        body = answer.body
        if "content" not in response:
            return ["expected no body"] if body else []
        if media_type not in response["content"]:
            return [f"Content-Type: {media_type}: not in the document"]
        if "content-encoding" in given:
            body = UNPACK[given["content-encoding"]](body)
        if oip.LENGTH.lower() in given:
            return oip.answer_problems(answer)
        if media_type == JSON:
            value = json.loads(body)
            if isinstance(value, dict) and "code" in value:
                self.codes.add(value["code"])
                if answer.request_id and value.get("request_id") not in (None, answer.request_id):
                    return [f"request_id: expected {answer.request_id}, got {value['request_id']}"]
            return self.document.errors(response["content"][media_type]["schema"], value)
        if media_type == NPY:
            numpy.load(io.BytesIO(body), allow_pickle=False)
        if media_type == RAW:
            shape = [int(dim) for dim in given["x-tensor-shape"].split(",")]
            size = 2 if given["x-tensor-dtype"] == "bfloat16" else numpy.dtype(
                given["x-tensor-dtype"]).itemsize
            if len(body) != math.prod(shape) * size:
                return [f"{len(body)} bytes for {shape} of {size} bytes"]
        elif "x-tensor-shape" in given or "x-tensor-dtype" in given:
            return [f"{media_type} with X-Tensor headers"]
        return []

    # --- routes

    def check_routes(self, daemon):
        text = self.ask(daemon, "GET", "/metrics").body.decode()
        served = collections.defaultdict(set)
        series = r'nsad_http_requests_total{route="([^"]*)",method="(\w+)"'
        for route, method in re.findall(series, text):
            served[route].add(method)
        listed = {path: set(self.document.methods(path)) for path in self.document.root["paths"]}
        served = {path: methods for route, methods in served.items() for path in expand(route)}
        for route, methods in served.items():
            if route == "other":
                continue
            if unnamed(route) not in map(unnamed, listed):
                yield f"{route}: served, but not in the document"
                continue
            path = next(p for p in listed if unnamed(p) == unnamed(route))
            if methods - {"OTHER"} != listed[path]:
                yield f"{route}: serves {sorted(methods)}, the document has {sorted(listed[path])}"
        for path in listed:
            if unnamed(path) not in map(unnamed, served):
                yield f"{path}: in the document, but not served"

    def check_methods(self, daemon, path):
        listed = self.document.methods(path)
        for method in METHODS:
            answer = self.ask(daemon, method, path, body=b"")
            yield from self.check(path, method, answer)
            if method in listed and answer.status in (404, 405) and "{region}" not in path:
                yield f"{method} {path}: in the document, but answered {answer.status}"
            if method not in listed:
                allowed = dict(answer.headers).get("Allow", "none")
                if answer.status != 405 or allowed != ", ".join(listed):
                    yield (f"{method} {path}: expected 405 that allows {', '.join(listed)}, got "
                           f"{answer.status} that allows {allowed}")
        for method in listed:
            # Any that the answer to another method names is one that the path takes.
            self.seen.add((path, method, 405))
        self.restore(daemon, path)

    def restore(self, daemon, path):
        """Undo what a request to `path` may have done."""
        if path.endswith("/unload"):
            self.ask(daemon, "POST", path.replace("/unload", "/load"))

    # --- examples

    def exchanges(self, path, method):
        """(name, request's media type, body) of the examples."""
        item = self.document.operation(path, method)
        if "requestBody" in item:
            for media_type, media in item["requestBody"]["content"].items():
                for name, example in media.get("examples", {}).items():
                    yield name, media_type, example_bytes(media_type, example)
        else:
            content = self.document.responses(path, method).get(200, {}).get("content", {})
            for media in content.values():
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
            if name in parameter.get("examples", {}) and parameter["in"] != "path":
                chosen = parameter["examples"][name]["value"]
                text = ",".join(map(str, chosen)) if isinstance(chosen, list) else str(chosen)
                (query if parameter["in"] == "query" else headers)[parameter["name"]] = text
        answer = self.ask(daemon, method, concrete(self.document, path, name), query, headers, body)
        given_type = dict(answer.headers).get("Content-Type")
        yield from self.check(path, method, answer)
        if answer.status != status:
            yield f"expected {status}, got {answer.status}: {answer.body[:300]!r}"
        elif given_type != answer_type:
            yield f"Content-Type: expected {answer_type}, got {given_type}"
        elif method != "HEAD":
            tolerance = COMPRESS_TOLERANCE if path == "/v1/compress" else 0
            yield from compare(answer_type, value, answer.body, tolerance)
        self.restore(daemon, path)

    # --- refusals

    def refuse(self, daemon, path, status, code, *, method="POST", **request):
        """Ask for what must be refused so; the connection's server must live on."""
        answer = self.ask(daemon, method, path, **request)
        problems = self.check(path, method, answer)
        got = f"{answer.status}: {answer.body[:200]!r} to {str(request)[:200]}"
        if answer.status != status:
            problems.append(f"expected {status}, got {got}")
        elif method != "HEAD" and json.loads(answer.body).get("code") != (
                None if path.startswith("/v2") else code):
            problems.append(f"expected {code}, got {got}")
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
