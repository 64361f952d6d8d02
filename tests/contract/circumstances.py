"""Servers in special circumstances: little room, little time, models not loaded, the end near."""
import collections
import gzip
import http.client
import pathlib
import signal
import socket
import tempfile
import threading
import zlib

from checks import without_models
from daemon import MODELS, WAIT_S, Daemon, head_bytes, read_answer, wait_until
from document import RAW, is_oip
from oip import INFER_PATHS, infer_of
from oip_pages import OPTIONS, test_switched_off
from operations import GOOD, raw_of

INFERENCE = [*GOOD, *INFER_PATHS]
READINESS = ["/readyz", "/v2/health/ready", "/v2/models/{model}/ready",
             "/v2/models/{model}/versions/{version}/ready"]


def request_of(path, large=False):
    """A good request for inference; one that is not cheap."""
    return infer_of(large) if is_oip(path) else raw_of(path, large)


def too_large(path):
    return "expected at most 4096 bytes" if is_oip(path) else "body_too_large"


def test_body_limit(contract, nsad):
    """413 for every operation: by Content-Length, in chunks, and by what is decompressed."""
    with Daemon(nsad, "--max-body-bytes", "4096", *OPTIONS) as daemon:
        for path, method, item in contract.document.operations():
            request = {"method": method, "body": bytes(5000), "headers": {"Content-Type": RAW}}
            yield from contract.refuse(daemon, path, 413, too_large(path), **request)
            if "requestBody" in item:
                yield from contract.refuse(daemon, path, 413, too_large(path), **request,
                                           chunks=True)
                for encoding, pack in [("gzip", gzip.compress), ("deflate", zlib.compress)]:
                    request["headers"] = {"Content-Type": RAW, "Content-Encoding": encoding}
                    request["body"] = pack(bytes(10_000_000))[:4096]  # not even whole
                    yield from contract.refuse(daemon, path, 413, too_large(path), **request)


def test_body_limit_of_pages(contract, nsad):
    """413 where nobody reads the body, too, when its length is not said beforehand."""
    with Daemon(nsad, "--max-body-bytes", "4096") as daemon:
        for path, method, item in contract.document.operations():
            if "requestBody" not in item:
                try:
                    yield from contract.refuse(daemon, path, 413, too_large(path), method=method,
                                               body=bytes(5000), chunks=True)
                except http.client.HTTPException as error:
                    yield f"{method} {path}: expected 413, got {error}"
        yield from daemon.alive()


def test_slow_requests(contract, nsad):
    """408 for every operation whose head, or body, doesn't come."""
    with Daemon(nsad, "--request-timeout-ms", "200") as daemon:
        waiting = []
        for path, method, _ in contract.document.operations():
            part = f"{method} {contract.target(path)} HTTP/1.1\r\nHost: x"
            waiting.append((path, method, daemon.send(part.encode())))
        for path in INFERENCE:
            target = contract.target(path)
            head = head_bytes("POST", target, {"Content-Type": RAW, "Content-Length": 9})
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
    """429, or under /v2 503, while one worker has more than enough to do; the rest is served."""
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
            for path in INFERENCE:
                status = 503 if is_oip(path) else 429
                for _ in range(500):
                    answer = contract.ask(daemon, "POST", path, **request_of(path, large=True))
                    yield from contract.check(path, "POST", answer)
                    if answer.status == status:
                        break
                else:
                    yield f"{path}: never {status}"
                if "Retry-After" not in dict(answer.headers):
                    yield f"{path}: expected a Retry-After with {status}"
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
        for path in INFERENCE:
            for _ in range(50):
                request = request_of(path, large=True)
                target = contract.target(path, request.get("query"))
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
            request = request_of(path) if path in INFERENCE else {}
            answer = contract.ask(daemon, method, path, **request)
            yield from contract.check(path, method, answer)


def test_loading(contract, nsad):
    """503 while models load: enough of them to ask meanwhile."""
    wanted = {(path, method) for path, method, _ in contract.document.operations()
              if not without_models(path)}
    for count in (100, 300, 900):
        with tempfile.TemporaryDirectory() as directory:
            many_versions(directory, count)
            with Daemon(nsad, *OPTIONS, models=directory, wait_for="msg=listening") as daemon:
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
        for path in READINESS:
            wait_until(lambda p=path: contract.ask(daemon, "HEAD", p).status == 503)
            for method in ("GET", "HEAD"):
                answer = contract.ask(daemon, method, path)
                yield from contract.check(path, method, answer)
                if answer.status != 503 or (method == "GET" and b"draining" not in answer.body):
                    yield f"{method} {path}: expected 503, got {answer.status} {answer.body!r}"
                if dict(answer.headers).get("Connection") != "close":
                    yield f"{method} {path}: expected Connection: close"
        for path in INFERENCE:
            answer = contract.ask(daemon, "POST", path, **request_of(path))
            yield from contract.check(path, "POST", answer)
            if answer.status != 200:
                yield f"{path}: expected to be served still, got {answer.status}"
        daemon.process.send_signal(signal.SIGTERM)
        if not wait_until(daemon.ended):
            yield "a second signal did not end it"


TESTS = [
    ("bodies over the limit are 413", test_body_limit),
    ("bodies over the limit are 413 where nobody reads them", test_body_limit_of_pages),
    ("slow requests are 408", test_slow_requests),
    ("a full queue is 429, and 503 under /v2", test_full_queue),
    ("a client that is gone is 499", test_client_gone),
    ("loading models is 503", test_loading),
    ("draining is 503", test_draining),
    ("what is switched off is 501", test_switched_off),
]
