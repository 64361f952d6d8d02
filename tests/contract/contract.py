#!/usr/bin/python3
"""Holds openapi.yaml and a running nsad to each other, both ways. Prints TAP.

usage: contract.py NSAD

Everything that the server answers here, asked nicely or not, goes through Contract.check(): its
status, headers and body must be what the document lists for the operation. What the document lists
must have been answered by the end.
"""
import pathlib
import sys

import circumstances
import oip
import operations
from checks import Contract
from daemon import Daemon
from document import Document, check_examples, check_form, check_references, check_schemas
from operations import DOCUMENT, GOOD
from tap import Tap


def test_server(tap, contract, nsad):
    with Daemon(nsad, *oip.OPTIONS) as daemon, oip.Segment():
        document = contract.document
        tap.run("the served document is the file", operations.test_served_document, contract,
                daemon)
        tap.run("routes and methods are the document's", contract.check_routes, daemon)
        for path in document.root["paths"]:
            tap.run(f"{path} takes the document's methods", contract.check_methods, daemon, path)
        for path, method, _ in document.operations():
            for name, *request in contract.exchanges(path, method):
                tap.run(f"{method} {path}: example {name}", contract.play, daemon, path, method,
                        name, *request)
        for path in GOOD:
            for what, test in [
                ("takes the document's fields", operations.test_fields),
                ("takes and gives each format", operations.test_formats),
                ("takes and gives compressed bodies", operations.test_encodings),
                ("refuses what doesn't fit", operations.test_refusals),
            ]:
                tap.run(f"{path} {what}", test, contract, daemon, path)
        for path in oip.INFER:
            tap.run(f"{path} refuses what doesn't fit", oip.test_refusals, contract, daemon, path)
            tap.run(f"{path} takes and gives compressed bodies", oip.test_encodings, contract,
                    daemon, path)
        tap.run("pages of models that aren't there", oip.test_pages, contract, daemon)
        tap.run("unknown routes under /v2 are 404", oip.test_unknown_route, contract, daemon)
        for path, method, _ in document.operations():
            tap.run(f"{method} {path} refuses large heads", operations.test_large_heads, contract,
                    daemon, path, method)
        tap.run("unknown routes are 404", operations.test_unknown_route, contract, daemon)
        tap.run("/metrics is compressed on request", operations.test_compressed_pages, contract,
                daemon)
        tap.run("requests without an id get one", operations.test_made_ids, contract, daemon)
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
        ("what no option allows is 501", circumstances.test_switches),
        ("bodies over the limit are 413", circumstances.test_body_limit),
        ("bodies over the limit are 413 where nobody reads them",
         circumstances.test_body_limit_of_pages),
        ("slow requests are 408", circumstances.test_slow_requests),
        ("a full queue is 429", circumstances.test_full_queue),
        ("a client that is gone is 499", circumstances.test_client_gone),
        ("loading models is 503", circumstances.test_loading),
        ("draining is 503", circumstances.test_draining),
    ]:
        tap.run(name, test, contract, nsad)
    tap.run("every status and code of the document was answered", contract.check_coverage)
    print(f"1..{tap.count}")
    return 1 if tap.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
