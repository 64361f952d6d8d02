"""The seed's modules as PyTorch users write them, with the weights of a file."""
import functools

import bodies
import torch


class Compress(torch.nn.Module):
    def __init__(self, tensors, activation):
        super().__init__()
        hidden, inputs = tensors["mlp.1.weight"].shape
        self.inputs = inputs
        self.mlp = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(inputs, hidden),
            torch.nn.GELU() if activation == "gelu" else torch.nn.ReLU(),
            torch.nn.Linear(hidden, tensors["mlp.3.weight"].shape[0]))

    def forward(self, x):
        return self.mlp(x)


class Posembed(torch.nn.Module):
    def __init__(self, tensors):
        super().__init__()
        self.embedding = torch.nn.Embedding(*tensors["embedding.weight"].shape)

    def forward(self, x):
        return x + self.embedding.weight[:x.shape[1]]


@functools.lru_cache(maxsize=8)
def load(path, activation="gelu"):
    tensors = {name: torch.from_numpy(array.copy())
               for name, array in bodies.read_safetensors(path).items()}
    model = Posembed(tensors) if "embedding.weight" in tensors else Compress(tensors, activation)
    model.load_state_dict(tensors)
    return model.eval()


@functools.lru_cache(maxsize=2)
def load_bf16(path, activation):
    """A copy: bfloat16() changes the model itself."""
    return load.__wrapped__(path, activation).bfloat16()
