#!/usr/bin/python3
"""Holds openapi.yaml and a running nsad to each other, both ways. Prints TAP.

usage: contract.py NSAD

Everything that the server answers here, asked nicely or not, goes through Contract.check(): its
status, headers and body must be what the document lists for the operation. What the document lists
must have been answered by the end.
"""
import http.client
import json
import pathlib
import sys

import circumstances
import document as documents
import oip
import oip_pages
import operations
from checks import Contract
from daemon import Daemon, head_bytes, read_answer
from document import DOCUMENT, METHODS, Document
from tap import Tap


def test_unknown_route(contract, daemon):
    schema = contract.document.at("#/components/schemas/Error")
    for path in ("/", "/v1", "/v1/select/", "/v1/unheard-of", "/v20", "/" + "x" * 2000):
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


def test_unknown_oip_route(contract, daemon):
    """Under /v2 the error is told as its clients expect it."""
    schema = contract.document.at("#/components/schemas/OipError")
    for path in ("/v2/nothing", "/v2//", "/v2/models/select/", "/v2/models//ready",
                 "/v2/models/select/versions//infer", "/v2/models/" + "x" * 256):
        for method in METHODS:
            answer = contract.ask(daemon, method, path)
            if answer.status != 404:
                yield f"{method} {path[:80]}: expected 404, got {answer.status}"
            elif method != "HEAD":
                yield from contract.document.errors(schema, json.loads(answer.body))
    yield from daemon.alive()


def test_large_heads(contract, daemon, path, method):
    """More than 64 KiB of request line, then of headers."""
    for status, head in [
        (414, head_bytes(method, contract.target(path) + "?" + "a" * 67000, {})),
        (431, head_bytes(method, contract.target(path), {"X-Padding": "a" * 67000})),
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


def test_server(tap, contract, nsad):
    example = oip_pages.segment(oip_pages.EXAMPLE_SEGMENT, bytes(64))
    with example, Daemon(nsad, *oip_pages.OPTIONS) as daemon:
        document = contract.document
        tap.run("the served document is the file", test_served_document, contract, daemon)
        tap.run("routes and methods are the document's", contract.check_routes, daemon)
        for path in document.root["paths"]:
            tap.run(f"{path} takes the document's methods", contract.check_methods, daemon, path)
        for path, method, _ in document.operations():
            for name, *request in contract.exchanges(path, method):
                tap.run(f"{method} {path}: example {name}", contract.play, daemon, path, method,
                        name, *request)
        for path in operations.GOOD:
            for what, test in [
                ("takes the document's fields", operations.test_fields),
                ("takes and gives each format", operations.test_formats),
                ("takes and gives compressed bodies", operations.test_encodings),
                ("refuses what doesn't fit", operations.test_refusals),
            ]:
                tap.run(f"{path} {what}", test, contract, daemon, path)
        for path in oip.INFER_PATHS:
            for what, test in oip.TESTS:
                tap.run(f"{path} {what}", test, contract, daemon, path)
        for name, test in oip_pages.TESTS:
            tap.run(name, test, contract, daemon)
        for path, method, _ in document.operations():
            tap.run(f"{method} {path} refuses large heads", test_large_heads, contract, daemon,
                    path, method)
        tap.run("unknown routes are 404", test_unknown_route, contract, daemon)
        tap.run("unknown routes under /v2 are 404", test_unknown_oip_route, contract, daemon)
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
    for name, test in documents.TESTS:
        tap.run(f"document: {name}", test, document)
    tap.run("a server with the demo models", test_server, tap, contract, nsad)
    for name, test in circumstances.TESTS:
        tap.run(name, test, contract, nsad)
    tap.run("every status and code of the document was answered", contract.check_coverage)
    print(f"1..{tap.count}")
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
