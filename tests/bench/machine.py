"""Where and what was measured."""
import datetime
import os
import pathlib
import platform
import re
import subprocess

NOTED_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")


def processor():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    memory = re.search(r"MemTotal:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text())

    def field(name, default):
        found = re.search(rf"^{name}\s*:\s*(.*)$", info, re.M)
        return found.group(1) if found else default

    flags = field("flags", "").split()
    return {
        "processor": field("model name", platform.machine()),
        "family_model": f"{field('cpu family', '?')}/{field('model', '?')}",
        "processors": os.cpu_count(),
        "isa": [flag for flag in NOTED_FLAGS if flag in flags],
        "memory_gib": round(int(memory.group(1)) / 2**20, 1),
        "kernel": platform.release().partition("-")[0],
    }


def revision():
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], text=True,
                          capture_output=True, check=False)
    return done.stdout.strip() or "unknown"


def describe():
    return {"machine": processor(), "revision": revision(),
            "date": datetime.date.today().isoformat()}
