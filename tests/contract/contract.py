#!/usr/bin/python3
"""Holds openapi.yaml and a running nsad to each other, both ways. Prints TAP.

usage: contract.py NSAD

Everything that the server answers here, asked nicely or not, goes through Contract.check(): its
status, headers and body must be what the document lists for the operation. What the document lists
must have been answered by the end.
"""
import collections
import gzip
import http.client
import io
import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import zlib

import jsonschema
import numpy
import yaml

import oip

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "openapi.yaml"
MODELS = ROOT / "docker" / "models"

SOCKET_TIMEOUT_S = 20
WAIT_S = 30
POLL_S = 0.01

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]

JSON = "application/json"
NPY = "application/x-npy"
RAW = "application/octet-stream"

# What undoes each Content-Encoding of an answer.
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}

# Of every answer, and not the document's business.
TRANSPORT_HEADERS = {"date", "content-length", "connection", "content-type", "transfer-encoding"}

# Differ from one machine to the next.
VOLATILE_KEYS = {"engine", "last_inference", "inference_count", "execution_count", "count", "ns"}

# Two kernels' answers of compress: each within 8 * 2^-24 of the largest output from the true one.
COMPRESS_TOLERANCE = 16 * 2.0**-24

# What cannot be brought about from outside: faults of the server, and a lack of memory.
UNPROVOKED_CODES = {"internal", "out_of_memory", "not_supported"}


def without_models(path):
    """Answered while models load."""
    return path in {"/livez", "/metrics", "/openapi.yaml"} or oip.without_models(path)


def unprovoked(path, status):
    return status == 500 or (status == 503 and without_models(path))


# --- TAP -----------------------------------------------------------------------------------------


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = 0

    def report(self, name, problems):
        problems = list(dict.fromkeys(problems))
        self.count += 1
        self.failed += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {self.count} - {name}")
        for problem in problems[:20]:
            for line in str(problem).splitlines():
                print(f"# {line[:400]}")
        if len(problems) > 20:
            print(f"# and {len(problems) - 20} more")
        sys.stdout.flush()

    def run(self, name, function, *args):
        """`function` returns or yields problems; an exception is one."""
        problems = []
        try:
            problems.extend(function(*args) or [])
        except Exception as error:  # the other tests go on
            problems.append(f"{type(error).__name__}: {error}")
        self.report(name, problems)


# --- the document --------------------------------------------------------------------------------

Operation = collections.namedtuple("Operation", "path method item")


class Document:
    def __init__(self, text):
        self.text = text
        self.root = yaml.safe_load(text)

    def resolve(self, node):
        while isinstance(node, dict) and "$ref" in node:
            node = self.at(node["$ref"])
        return node

    def at(self, reference):
        node = self.root
        for part in reference.removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
        return node

    def nodes(self, node=None, place="#"):
        """Every (place, object) of the document, but for what examples hold."""
        node = self.root if node is None else node
        if isinstance(node, dict):
            yield place, node
            for key, value in node.items():
                if key not in ("value", "example"):
                    yield from self.nodes(value, f"{place}/{key}")
        elif isinstance(node, list):
            for i, value in enumerate(node):
                yield from self.nodes(value, f"{place}/{i}")

    def operations(self):
        for path, item in self.root["paths"].items():
            for method in METHODS:
                if method.lower() in item:
                    yield Operation(path, method, item[method.lower()])

    def operation(self, path, method):
        """That of `method`, or if there is none, any: they list the same refusals."""
        item = self.root["paths"][path]
        return item.get(method.lower()) or next(o.item for o in self.operations() if o.path == path)

    def methods(self, path):
        return [o.method for o in self.operations() if o.path == path]

    def parameters(self, path, method):
        listed = self.root["paths"][path].get("parameters", [])
        listed = listed + self.operation(path, method).get("parameters", [])
        return [self.resolve(parameter) for parameter in listed]

    def responses(self, path, method):
        responses = self.operation(path, method)["responses"]
        return {int(status): self.resolve(response) for status, response in responses.items()}

    def errors(self, schema, value):
        # The components travel with the schema, for its references to lead somewhere.
        whole = {"$ref": "#/schema", "schema": schema, "components": self.root["components"]}
        validator = jsonschema.Draft202012Validator(whole)
        return [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(value)]


def example_value(media_type, example):
    """What stands for the body: for JSON the value, or the text that the example spells."""
    value = example["value"]
    if media_type == JSON and isinstance(value, str):
        return json.loads(value)
    return value


def example_bytes(media_type, example):
    value = example["value"]
    if media_type == JSON:
        return (value if isinstance(value, str) else json.dumps(value)).encode()
    return value.encode("latin-1")


def check_references(document):
    used = set()
    for place, node in document.nodes():
        if "$ref" in node:
            used.add(node["$ref"])
            try:
                document.at(node["$ref"])
            except (KeyError, TypeError):
                yield f"{place}: {node['$ref']} leads nowhere"
    for kind, components in document.root["components"].items():
        for name in components:
            if f"#/components/{kind}/{name}" not in used:
                yield f"components/{kind}/{name} is not used"


def check_form(document):
    root = document.root
    if root["openapi"] != "3.1.0":
        yield f"openapi: expected 3.1.0, got {root['openapi']}"
    if root["info"]["license"]["identifier"] != "MIT":
        yield "info.license: expected MIT"
    tags = {tag["name"] for tag in root["tags"]}
    names = collections.Counter()
    for path, method, item in document.operations():
        names[item["operationId"]] += 1
        if not item.get("summary") or not item.get("tags") or not set(item["tags"]) <= tags:
            yield f"{method} {path}: expected a summary and declared tags"
    yield from (f"operationId {name} stands twice" for name, count in names.items() if count > 1)


def check_schemas(document):
    for name, schema in document.root["components"]["schemas"].items():
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            yield f"{name}: {error.message}"
    for place, node in document.nodes():
        if node.get("type") == "object" and node.get("additionalProperties") is not False:
            yield f"{place}: additionalProperties: expected false"
        required = node.get("required", False)  # of a parameter it is a boolean
        if isinstance(required, list) and set(required) - set(node["properties"]):
            yield f"{place}: requires what it doesn't describe"


def check_examples(document):
    """Each example is of its schema; each operation's are whole exchanges."""
    bodies = [(place, node) for place, node in document.nodes() if "content" in node]
    for place, node in bodies:
        for media_type, media in node["content"].items():
            for name, example in media.get("examples", {}).items():
                value = example_value(media_type, example)
                for error in document.errors(media["schema"], value):
                    yield f"{place}: {name}: {error}"
    for name, parameter in document.root["components"]["parameters"].items():
        for example in parameter.get("examples", {}).values():
            errors = document.errors(parameter["schema"], example["value"])
            yield from (f"{name}: {error}" for error in errors)
    for path, method, item in document.operations():
        answers = collections.Counter()
        for status, response in document.responses(path, method).items():
            for media in response.get("content", {}).values():
                answers.update(list(media.get("examples", {})))
        asked = [name for media in item.get("requestBody", {}).get("content", {}).values()
                 for name in media.get("examples", {})]
        content = document.responses(path, method).get(200, {}).get("content", {})
        given = [name for media in content.values() for name in media.get("examples", {})]
        if content and not given:
            yield f"{method} {path}: no example"
        if "requestBody" in item:
            yield from (f"{method} {path}: {name}: no request" for name in set(given) - set(asked))
            for name in asked:
                if answers[name] != 1:
                    yield f"{method} {path}: {name}: {answers[name]} answers"


# --- the server ----------------------------------------------------------------------------------

Answer = collections.namedtuple("Answer", "status headers body request_id")


class Daemon:
    """A server on a port of its own; a context."""

    def __init__(self, nsad, *options, models=MODELS, wait_for="msg=ready"):
        command = [nsad, "--listen", "127.0.0.1:0", "--log-format", "logfmt", "--log-level", "info",
                   "--model-repository", str(models), *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NSAD_")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()
        try:
            wait_until(lambda: any(wait_for in line for line in self.lines) or self.ended())
            address = re.search(r'msg=listening address="?([0-9.]+):(\d+)', "\n".join(self.lines))
            self.host, self.port = address.group(1), int(address.group(2))
        except Exception:
            self.close()
            raise RuntimeError("the server did not start: " + " | ".join(self.lines[-3:]))

    def read_log(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def ended(self):
        return self.process.poll() is not None

    def close(self):
        if not self.ended():
            self.process.terminate()
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(WAIT_S)
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=SOCKET_TIMEOUT_S)

    def alive(self):
        if self.ended():
            return [f"the server ended with status {self.process.returncode}: {self.lines[-3:]}"]
        answer = read_answer(self.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), "GET")
        return [] if answer.status == 200 else [f"/livez: expected 200, got {answer.status}"]

    def send(self, data):
        connection = self.connect()
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before its end: the answer is there
        return connection


def wait_until(condition):
    """Poll `condition`; its last value, true or not, after WAIT_S at the latest."""
    for _ in range(int(WAIT_S / POLL_S)):
        value = condition()
        if value:
            return value
        time.sleep(POLL_S)
    return condition()


def read_answer(connection, method, request_id=None):
    with connection:
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
            body = response.read()
        finally:
            response.close()
    return Answer(response.status, response.getheaders(), body, request_id)


def head_bytes(method, target, headers):
    lines = [f"{method} {target} HTTP/1.1", "Host: nsad"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunked(body, size=1024):
    out = b""
    for i in range(0, len(body), size):
        part = body[i:i + size]
        out += b"%x\r\n%b\r\n" % (len(part), part)
    return out + b"0\r\n\r\n"


# --- the two together ----------------------------------------------------------------------------


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


def unnamed(path):
    return re.sub(r"{[^}]*}", "{}", path)


def expand(route):
    """The paths that a pattern stands for: what stands in [] may be left out."""
    if "[" not in route:
        return [route.replace("]", "")]
    begin = route.rindex("[")
    end = route.index("]", begin)
    before, inside, after = route[:begin], route[begin + 1:end], route[end + 1:]
    return expand(before + after) + expand(before + inside + after)


def concrete(document, path, name=None, params=None):
    """`path` with `params`, or the examples called `name`, or the first examples."""
    for parameter in document.root["paths"][path].get("parameters", []):
        parameter = document.resolve(parameter)
        if parameter["in"] == "path":
            examples = parameter["examples"]
            example = examples.get(name) or next(iter(examples.values()))
            value = (params or {}).get(parameter["name"], example["value"])
            path = path.replace("{%s}" % parameter["name"], urllib.parse.quote(str(value), safe=""))
    return path


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


# --- refusals of the operations ------------------------------------------------------------------


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
    "/v1/select": ({"num_selected_blocks": 1}, (1, 4), (1, 50000)),
    "/v1/compress": ({}, (0, 4, 64), (64, 4, 64)),
    "/v1/posembed": ({}, (0, 3, 512), (600, 1, 512)),
}


def raw_of(path, large=False, **headers):
    if path in oip.INFER:
        return oip.raw_request(large, **headers)
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


def test_unknown_route(contract, daemon):
    schema = contract.document.at("#/components/schemas/Error")
    for path in ("/", "/v1", "/v1/select/", "/v1/unheard-of", "/" + "x" * 2000):
        for method in METHODS:
            answer = contract.ask(daemon, method, path)
            if answer.status != 404:
                yield f"{method} {path[:80]}: expected 404, got {answer.status}"
            elif method != "HEAD":
                value = json.loads(answer.body)
                contract.codes.add(value.get("code"))
                yield from contract.document.errors(schema, value)
                if (value["code"], value["request_id"]) != ("unknown_route", answer.request_id):
                    yield f"{method} {path[:80]}: {value}"
    yield from daemon.alive()


def test_large_heads(contract, daemon, path, method):
    """More than 64 KiB of request line, then of headers."""
    for status, head in [
        (414, head_bytes(method, concrete(contract.document, path) + "?" + "a" * 67000, {})),
        (431, head_bytes(method, concrete(contract.document, path), {"X-Padding": "a" * 67000})),
    ]:
        answer = None
        for _ in range(10):  # what it didn't read may make the server reset the connection
            try:
                answer = read_answer(daemon.send(head), method)
                break
            except (ConnectionResetError, http.client.HTTPException):
                pass
        if not answer or answer.status != status:
            yield f"{method} {path}: expected {status}, got {answer and answer.status}"
        else:
            yield from contract.check(path, method, answer)
    yield from daemon.alive()


def test_served_document(contract, daemon):
    answer = contract.ask(daemon, "GET", "/openapi.yaml")
    if answer.body != DOCUMENT.read_bytes():
        yield f"/openapi.yaml: {len(answer.body)} bytes that are not those of {DOCUMENT.name}"


def test_compressed_pages(contract, daemon):
    """Metrics in each encoding that the document has for answers, and plain for the others."""
    encodings = contract.document.at("#/components/headers/Content-Encoding/schema/enum")
    for asked, expected in [("br", None), *((encoding, encoding) for encoding in encodings)]:
        answer = contract.ask(daemon, "GET", "/metrics", headers={"Accept-Encoding": asked})
        yield from contract.check("/metrics", "GET", answer)
        given = dict(answer.headers).get("Content-Encoding")
        if given != expected:
            yield f"/metrics: expected {expected} for who asks for {asked}, got {given}"


def test_made_ids(contract, daemon):
    """Without an id, or with one that doesn't fit, the server makes one; never the same."""
    schema = contract.document.at("#/components/schemas/RequestId")
    ids = set()
    for given in ({}, {}, {"X-Request-Id": "two words"}, {"X-Request-Id": "x" * 129}):
        connection = daemon.send(head_bytes("GET", "/v1/nothing", given))
        answer = read_answer(connection, "GET")
        made = dict(answer.headers).get("X-Request-Id")
        yield from contract.document.errors(schema, made)
        if json.loads(answer.body)["request_id"] != made:
            yield f"{made} in the header, {answer.body!r} in the body"
        ids.add(made)
    if len(ids) != 4:
        yield f"expected four ids, got {ids}"


# --- servers in special circumstances ------------------------------------------------------------


def test_switches(contract, nsad):
    with Daemon(nsad) as daemon:
        yield from oip.test_switches(contract, daemon)


def test_body_limit(contract, nsad):
    """413 for every operation: by Content-Length, in chunks, and by what is decompressed."""
    with Daemon(nsad, "--max-body-bytes", "4096") as daemon:
        for path, method, _ in contract.document.operations():
            request = {"method": method, "body": bytes(5000), "headers": {"Content-Type": RAW}}
            yield from contract.refuse(daemon, path, 413, "body_too_large", **request)
        for path in [*GOOD, *oip.INFER]:
            request = {"body": bytes(5000), "headers": {"Content-Type": RAW}, "chunks": True}
            yield from contract.refuse(daemon, path, 413, "body_too_large", **request)
            headers = {"Content-Type": RAW, "Content-Encoding": "gzip"}
            yield from contract.refuse(daemon, path, 413, "body_too_large", headers=headers,
                                       body=gzip.compress(bytes(5000)))


def test_body_limit_of_pages(contract, nsad):
    """413 where nobody reads the body, too, when its length is not said beforehand."""
    with Daemon(nsad, "--max-body-bytes", "4096") as daemon:
        for path, method, _ in contract.document.operations():
            if path not in GOOD and path not in oip.INFER:
                try:
                    yield from contract.refuse(daemon, path, 413, "body_too_large", method=method,
                                               body=bytes(5000), chunks=True)
                except http.client.HTTPException as error:
                    yield f"{method} {path}: expected 413, got {error}"
        yield from daemon.alive()


def test_slow_requests(contract, nsad):
    """408 for every operation whose head, or body, doesn't come."""
    with Daemon(nsad, "--request-timeout-ms", "200") as daemon:
        waiting = []
        for path, method, _ in contract.document.operations():
            part = f"{method} {concrete(contract.document, path)} HTTP/1.1\r\nHost: x"
            waiting.append((path, method, daemon.send(part.encode())))
        for path in [*GOOD, *oip.INFER]:
            head = head_bytes("POST", concrete(contract.document, path),
                              {"Content-Type": RAW, "Content-Length": 9})
            waiting.append((path, "POST", daemon.send(head + b"abc")))
        for path, method, connection in waiting:
            # Sent by who doesn't know the method: to HEAD too it comes with its body.
            answer = read_answer(connection, "GET")
            if method == "HEAD":
                answer = answer._replace(body=b"")
            yield from contract.check(path, method, answer)
            if answer.status != 408:
                yield f"{method} {path}: expected 408, got {answer.status}"
        yield from daemon.alive()


def test_full_queue(contract, nsad):
    """429 while one worker has more than enough to do, and the rest is served."""
    stop = threading.Event()
    statuses = collections.Counter()

    def load(daemon):
        request = raw_of("/v1/compress", large=True)
        request["query"]["shape"] = "4096,4,64"
        request["body"] = bytes(4096 * 256 * 4)
        for _ in range(500):
            if stop.is_set():
                break
            statuses[contract.ask(daemon, "POST", "/v1/compress", **request).status] += 1

    with Daemon(nsad, "--compute-threads", "1", "--max-queue-bytes", "1") as daemon:
        threads = [threading.Thread(target=load, args=(daemon,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for path in [*GOOD, *oip.INFER]:
                full = 503 if path in oip.INFER else 429
                for _ in range(500):
                    answer = contract.ask(daemon, "POST", path, **raw_of(path, large=True))
                    yield from contract.check(path, "POST", answer)
                    if answer.status == full:
                        if "Retry-After" not in dict(answer.headers):
                            yield f"{path}: {full} without Retry-After"
                        break
                else:
                    yield f"{path}: never {full}"
        finally:
            stop.set()
            for thread in threads:
                thread.join(WAIT_S)
        if set(statuses) - {200, 429} or not statuses[200]:
            yield f"under load: expected 200 and 429, got {dict(statuses)}"
        yield from daemon.alive()


def test_client_gone(contract, nsad):
    """499 for who stops sending with the last byte of the body, and reads on."""
    with Daemon(nsad, "--compute-threads", "1") as daemon:
        for path in [*GOOD, *oip.INFER]:
            for _ in range(50):
                request = raw_of(path, large=True)
                target = concrete(contract.document, path)
                if "query" in request:
                    target += "?" + urllib.parse.urlencode(request["query"], safe=",")
                length = {"Content-Length": len(request["body"])}
                head = head_bytes("POST", target, request["headers"] | length)
                connection = daemon.send(head + request["body"][:-1])
                # The last byte waits for the end of the stream, to arrive together with it.
                connection.send(request["body"][-1:], socket.MSG_MORE)
                connection.shutdown(socket.SHUT_WR)
                try:
                    answer = read_answer(connection, "POST")
                except (ConnectionResetError, http.client.HTTPException):
                    continue
                yield from contract.check(path, "POST", answer)
                if answer.status == 499:
                    break
            else:
                yield f"{path}: never 499"
        yield from daemon.alive()


def many_versions(directory, count):
    for version in range(1, count + 1):
        target = pathlib.Path(directory, "compress", str(version))
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(MODELS / "compress" / "1")


def ask_while_loading(contract, daemon):
    for path, method, _ in contract.document.operations():
        if not without_models(path):
            request = raw_of(path) if path in GOOD or path in oip.INFER else {}
            answer = contract.ask(daemon, method, path, **request)
            yield from contract.check(path, method, answer)


def test_loading(contract, nsad):
    """503 while models load: enough of them to ask meanwhile."""
    wanted = {(path, method) for path, method, _ in contract.document.operations()
              if not without_models(path)}
    for count in (100, 300, 900):
        with tempfile.TemporaryDirectory() as directory:
            many_versions(directory, count)
            with Daemon(nsad, *oip.OPTIONS, models=directory,
                        wait_for="msg=listening") as daemon:
                yield from ask_while_loading(contract, daemon)
                yield from daemon.alive()
        missing = {o for o in wanted if (*o, 503) not in contract.seen}
        if not missing:
            return
    yield f"never 503: {sorted(missing)}"


def test_draining(contract, nsad):
    """Readiness is 503 from the first signal on, while all else is served; a second one ends it."""
    with Daemon(nsad, "--drain-delay-ms", "60000") as daemon:
        daemon.process.send_signal(signal.SIGTERM)
        for path in ("/readyz", "/v2/health/ready"):
            wait_until(lambda p=path: contract.ask(daemon, "HEAD", p).status == 503)
            for method in ("GET", "HEAD"):
                answer = contract.ask(daemon, method, path)
                yield from contract.check(path, method, answer)
                if answer.status != 503 or (method == "GET" and b"draining" not in answer.body):
                    yield f"{method} {path}: expected 503, got {answer.status} {answer.body!r}"
                if dict(answer.headers).get("Connection") != "close":
                    yield f"{method} {path}: expected Connection: close"
        for path in [*GOOD, *oip.INFER]:
            answer = contract.ask(daemon, "POST", path, **raw_of(path))
            yield from contract.check(path, "POST", answer)
            if answer.status != 200:
                yield f"{path}: expected to be served still, got {answer.status}"
        daemon.process.send_signal(signal.SIGTERM)
        if not wait_until(daemon.ended):
            yield "a second signal did not end it"


# --- all of it -----------------------------------------------------------------------------------


def test_server(tap, contract, nsad):
    with Daemon(nsad, *oip.OPTIONS) as daemon, oip.Segment():
        document = contract.document
        tap.run("the served document is the file", test_served_document, contract, daemon)
        tap.run("routes and methods are the document's", contract.check_routes, daemon)
        for path in document.root["paths"]:
            tap.run(f"{path} takes the document's methods", contract.check_methods, daemon, path)
        for path, method, _ in document.operations():
            for name, *request in contract.exchanges(path, method):
                tap.run(f"{method} {path}: example {name}", contract.play, daemon, path, method,
                        name, *request)
        for path in GOOD:
            for what, test in [
                ("takes the document's fields", test_fields),
                ("takes and gives each format", test_formats),
                ("takes and gives compressed bodies", test_encodings),
                ("refuses what doesn't fit", test_refusals),
            ]:
                tap.run(f"{path} {what}", test, contract, daemon, path)
        for path in oip.INFER:
            tap.run(f"{path} refuses what doesn't fit", oip.test_refusals, contract, daemon, path)
            tap.run(f"{path} takes and gives compressed bodies", oip.test_encodings, contract,
                    daemon, path)
        tap.run("pages of models that aren't there", oip.test_pages, contract, daemon)
        tap.run("unknown routes under /v2 are 404", oip.test_unknown_route, contract, daemon)
        for path, method, _ in document.operations():
            tap.run(f"{method} {path} refuses large heads", test_large_heads, contract, daemon,
                    path, method)
        tap.run("unknown routes are 404", test_unknown_route, contract, daemon)
        tap.run("/metrics is compressed on request", test_compressed_pages, contract, daemon)
        tap.run("requests without an id get one", test_made_ids, contract, daemon)
        tap.run("the server is well", daemon.alive)


def main(arguments):
    if len(arguments) != 2:
        print(__doc__.splitlines()[2], file=sys.stderr)
        return 2
    nsad = str(pathlib.Path(arguments[1]).resolve())
    tap = Tap()
    document = Document(DOCUMENT.read_text(encoding="utf-8"))
    contract = Contract(document)
    tap.run("document: references lead somewhere, components are used", check_references, document)
    tap.run("document: version, license, tags, ids", check_form, document)
    tap.run("document: schemas are valid and strict", check_schemas, document)
    tap.run("document: examples are whole and of their schemas", check_examples, document)
    tap.run("a server with the demo models", test_server, tap, contract, nsad)
    for name, test in [
        ("what no option allows is 501", test_switches),
        ("bodies over the limit are 413", test_body_limit),
        ("bodies over the limit are 413 where nobody reads them", test_body_limit_of_pages),
        ("slow requests are 408", test_slow_requests),
        ("a full queue is 429", test_full_queue),
        ("a client that is gone is 499", test_client_gone),
        ("loading models is 503", test_loading),
        ("draining is 503", test_draining),
    ]:
        tap.run(name, test, contract, nsad)
    tap.run("every status and code of the document was answered", contract.check_coverage)
    print(f"1..{tap.count}")
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
