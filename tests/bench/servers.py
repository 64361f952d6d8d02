"""The programs that are measured and those that measure: started here, and ended by their ids."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

START_S = 60
STOP_S = 20
MAX_REQUESTS = 1 << 20


def clean_environment(**more):
    """Without what would configure or slow what is measured."""
    return {**{key: value for key, value in os.environ.items()
               if not key.startswith(("NSAD_", "OPENBLAS_"))}, **more}


def end_what_was_started():
    """Let SIGTERM unwind as an exception does, so that no program is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Process:
    """A program that runs until it is closed; a context."""

    def __init__(self, command, environment=None, **options):
        self.process = subprocess.Popen([str(word) for word in command], text=True,
                                        env=clean_environment(**(environment or {})), **options)

    @property
    def pid(self):
        return self.process.pid

    def close(self):
        """End of input, then SIGTERM, then SIGKILL: to this process alone."""
        if self.process.stdin:
            self.process.stdin.close()
        else:
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Worker(Process):
    """A program that answers protocol.h's lines, on one thread."""

    def __init__(self, *command, **environment):
        super().__init__(command, {"OMP_NUM_THREADS": "1", **environment}, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)

    def ask(self, seconds, *words):
        self.process.stdin.write(" ".join(map(str, (seconds, *words))) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} ended at: {' '.join(map(str, words))}")
        return json.loads(line)


class PortServer(Process):
    """A server that prints its port and ends with its input: bare.c, peer_fastapi.py."""

    def __init__(self, *command):
        super().__init__(command, {"OMP_NUM_THREADS": "1"}, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            self.close()
            raise RuntimeError(f"{command[0]} did not start")
        self.port = int(line)


class Nsad(Process):
    """The daemon on a port of its own, its log in a file that is gone at once."""

    def __init__(self, nsad, *options):
        log = tempfile.TemporaryFile("w+")
        begin = time.monotonic()
        super().__init__([nsad, "--listen", "127.0.0.1:0", "--log-format", "logfmt", "--log-level",
                          "info", *options], stderr=log)
        text = ""
        while "msg=ready" not in text:
            if self.process.poll() is not None or time.monotonic() > begin + START_S:
                self.close()
                raise RuntimeError(f"nsad did not start: {text[-1000:]}")
            time.sleep(0.0005)
            text = os.pread(log.fileno(), 1 << 20, 0).decode()
        self.ready_s = time.monotonic() - begin
        self.port = int(re.search(r'msg=listening address="?127\.0\.0\.1:(\d+)', text).group(1))
        log.close()

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def answer(self, case):
        """One answer's body, as a client would get it."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{case.target}", case.body,
                                         {k: str(v) for k, v in case.headers.items()})
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            return answer.read()


class Load:
    """bench_load, and a folder for the requests that it sends."""

    def __init__(self, program):
        self.program = program
        self.folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.files = {}

    def file(self, wire):
        if wire not in self.files:
            path = pathlib.Path(self.folder.name) / str(len(self.files))
            path.write_bytes(wire)
            self.files[wire] = path
        return self.files[wire]

    def run(self, server, wire, connections, warm_s, seconds):
        """What bench_load prints; an answer that is wrong ends everything."""
        command = [self.program, server.port, server.pid, connections, warm_s, seconds,
                   MAX_REQUESTS, self.file(wire)]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              timeout=START_S + warm_s + seconds, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}")
        return json.loads(done.stdout)

    def close(self):
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def best(results):
    """Of several rounds, the best of each figure: noise only ever makes them worse."""
    return {key: max(r[key] for r in results) if key == "requests_per_s" else
            min(r[key] for r in results) for key in results[0] if key != "requests"}
