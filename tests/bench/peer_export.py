"""Write the ONNX files that peer_onnx.js runs: peer_export.py FOLDER NAME=WEIGHTS..."""
import pathlib
import sys

import peer_models
import torch

OPSET = 13  # has Erf, which exact GELU is made of, and TopK with k as an input


class Select(torch.nn.Module):
    def forward(self, x, k):
        return torch.topk(x, k, dim=-1).indices


def export(model, arguments, path, names, axes):
    torch.onnx.export(model, arguments, str(path), input_names=names, output_names=["y"],
                      opset_version=OPSET, dynamic_axes=axes)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for argument in sys.argv[2:]:
        name, _, weights = argument.partition("=")
        model = peer_models.load(weights)
        if isinstance(model, peer_models.Compress):
            x, axes = torch.zeros(2, model.inputs), {"x": {0: "rows"}, "y": {0: "rows"}}
        else:
            length, dim = model.embedding.weight.shape
            x, axes = torch.zeros(2, length, dim), {"x": {0: "batch"}, "y": {0: "batch"}}
        export(model, (x,), folder / f"{name}.onnx", ["x"], axes)
    export(torch.jit.script(Select()), (torch.zeros(2, 8), torch.tensor(3)),
           folder / "select.onnx", ["x", "k"], {"x": {0: "rows", 1: "n"}})


if __name__ == "__main__":
    main()
