"""The README does what it says: its commands print what it shows, and its table is fresh.

Usage: readme.py NSAD OPTIONS_MARKDOWN, from the repository's root. Prints TAP.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile

ADDRESS = "localhost:8080"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
RUNNERS = {"python": ["/usr/bin/python3"], "javascript": ["node", "--input-type=module"]}
TIMEOUT_S = 60
DEBIANS_PYTHON_FIRST = {**os.environ, "PATH": "/usr/bin:" + os.environ["PATH"]}


def start(nsad):
    daemon = subprocess.Popen(
        [nsad, "--listen", "127.0.0.1:0", "--model-repository", "docker/models"],
        stderr=subprocess.PIPE, text=True)
    address = None
    for line in daemon.stderr:
        found = re.search(r"msg=ready address=(\S+)", line)
        if found:
            address = found.group(1)
            break
    if address is None:
        raise SystemExit("Bail out! the server did not start")
    return daemon, address


def blocks(text):
    """(language, body) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def console_steps(body):
    """(command, expected output) of each `$ ` command of a console block."""
    for step in re.split(r"^\$ ", body, flags=re.M)[1:]:
        lines = step.split("\n")
        last = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
        yield "\n".join(lines[:last + 1]), "\n".join(lines[last + 1:])


def same(expected, got):
    """Equal but for the last digits of numbers, which differ between processors."""
    if NUMBER.sub("#", expected).split() != NUMBER.sub("#", got).split():
        return False
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(got))
    return all(abs(float(a) - float(b)) <= 1e-5 * max(1.0, abs(float(a))) for a, b in pairs)


def checks(readme, address, folder):
    """(name, expected, got) of each command and program with an output in the README."""
    found = blocks(readme)
    for index, (language, body) in enumerate(found):
        if language == "console":
            for command, expected in console_steps(body):
                done = subprocess.run(["bash", "-c", command.replace(ADDRESS, address)],
                                      cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S,
                                      env=DEBIANS_PYTHON_FIRST)
                yield command.split("\n")[0], expected, done.stdout + done.stderr
        elif language in RUNNERS and index + 1 < len(found) and found[index + 1][0] == "text":
            done = subprocess.run(RUNNERS[language], input=body.replace(ADDRESS, address),
                                  cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
            yield f"the {language} program", found[index + 1][1], done.stdout + done.stderr


def main():
    nsad, options_markdown = sys.argv[1:]
    with open("README.md", encoding="utf-8") as file:
        readme = file.read()
    results = []
    daemon, address = start(nsad)
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(os.path.abspath("tests"), os.path.join(folder, "tests"))
            for name, expected, got in checks(readme, address, folder):
                results.append((name, same(expected, got), expected, got))
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.stderr.read()
        status = daemon.wait(TIMEOUT_S)
    results.append(("the server ends with status 0", status == 0, "0", str(status)))
    table = subprocess.run([options_markdown], capture_output=True, text=True, check=True).stdout
    shown = re.search(r"<!-- options.*?-->\n(.*?)<!-- /options -->", readme, re.S).group(1)
    results.append(("the table of options is fresh", shown.strip() == table.strip(),
                    "the output of `make docs`", "another"))
    print(f"1..{len(results)}")
    for number, (name, passed, expected, got) in enumerate(results, 1):
        print(f"{'ok' if passed else 'not ok'} {number} - {name}")
        if not passed:
            print("# expected:\n#   " + expected.strip().replace("\n", "\n#   "))
            print("# got:\n#   " + got.strip().replace("\n", "\n#   "))
    return 0 if all(result[1] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
