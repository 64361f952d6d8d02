"""Answers beside the document's examples."""
import json
import math

import numpy

from document import JSON, NPY, RAW

# Differ from one machine to the next.
VOLATILE_KEYS = {"engine", "last_inference", "inference_count", "execution_count", "count", "ns"}

# Two kernels' answers of compress: each within 8 * 2^-24 of the largest output from the true one.
COMPRESS_TOLERANCE = 16 * 2.0**-24


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
