"""A server to ask, and the bytes to ask it with."""
import collections
import http.client
import os
import re
import socket
import subprocess
import threading
import time

from document import ROOT

MODELS = ROOT / "docker" / "models"

SOCKET_TIMEOUT_S = 20
WAIT_S = 30
POLL_S = 0.01

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
