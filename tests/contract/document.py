"""openapi.yaml: what it says of each operation, and whether it is in order by itself."""
import collections
import json
import pathlib
import urllib.parse

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "openapi.yaml"

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]

JSON = "application/json"
NPY = "application/x-npy"
RAW = "application/octet-stream"

SCHEMAS = "#/components/schemas/"

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

    def main_status(self, path, method):
        """Of the answer that the operation is for; of what is not supported, that it is not."""
        return 200 if 200 in self.responses(path, method) else 501

    def main_content(self, path, method):
        return self.responses(path, method)[self.main_status(path, method)].get("content", {})

    def concrete(self, path, values=None, example=None):
        """`path` with `values`, or else what the example uses, or else the first examples."""
        listed = self.root["paths"].get(path, {}).get("parameters", [])
        for parameter in map(self.resolve, listed):
            if parameter["in"] == "path":
                name, examples = parameter["name"], parameter["examples"]
                chosen = examples.get(example, next(iter(examples.values())))["value"]
                value = (values or {}).get(name, chosen)
                path = path.replace("{%s}" % name, urllib.parse.quote(str(value), safe=""))
        return path

    def errors(self, schema, value):
        # The components travel with the schema, for its references to lead somewhere.
        whole = {"$ref": "#/schema", "schema": schema, "components": self.root["components"]}
        validator = jsonschema.Draft202012Validator(whole)
        return [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(value)]


def is_oip(path):
    """Whether errors are told as the Open Inference Protocol has them."""
    return path == "/v2" or path.startswith("/v2/")


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


def answered(document, node, found):
    """Add to `found` the names of the schemas that `node` is made of."""
    for _, part in document.nodes(node):
        name = part.get("$ref", "").removeprefix(SCHEMAS)
        if name in document.root["components"]["schemas"] and name not in found:
            found.add(name)
            answered(document, document.at(SCHEMAS + name), found)


def check_schemas(document):
    """Objects have no other keys than described, but in requests that say so."""
    closed = set()
    answered(document, document.root["components"]["responses"], closed)
    for name, schema in document.root["components"]["schemas"].items():
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            yield f"{name}: {error.message}"
    for place, node in document.nodes():
        if node.get("type") == "object":
            may_be_open = place.removeprefix(SCHEMAS).split("/")[0] not in closed
            if node.get("additionalProperties") not in ([False, True] if may_be_open else [False]):
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
        content = document.main_content(path, method)
        given = [name for media in content.values() for name in media.get("examples", {})]
        if content and not given:
            yield f"{method} {path}: no example"
        if "requestBody" in item:
            yield from (f"{method} {path}: {name}: no request" for name in set(given) - set(asked))
            for name in asked:
                if answers[name] != 1:
                    yield f"{method} {path}: {name}: {answers[name]} answers"


TESTS = [
    ("references lead somewhere, components are used", check_references),
    ("version, license, tags, ids", check_form),
    ("schemas are valid and strict", check_schemas),
    ("examples are whole and of their schemas", check_examples),
]
