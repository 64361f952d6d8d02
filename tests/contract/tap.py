"""The output of a test, as TAP."""
import sys


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
