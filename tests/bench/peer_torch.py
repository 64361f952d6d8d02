"""PyTorch on one thread, in process, for peers.py: answers what protocol.h describes."""
import json
import sys
import time

import bodies
import peer_models
import torch

WARM_S = 0.0002


def seconds_of(budget_s, call):
    """As measure.c's bench_seconds()."""
    def batch_s(batch):
        begin = time.thread_time()
        for _ in range(batch):
            call()
        return time.thread_time() - begin

    call()
    batch, total = 1, batch_s(1)
    while total < WARM_S:
        batch *= 2
        total = batch_s(batch)
    calls = batch
    while total < budget_s:
        total += batch_s(batch)
        calls += batch
    return total / calls


def compress(path, precision, activation, rows):
    """In bfloat16 the input is converted within the time that is measured, as nsa does."""
    bf16 = precision == "bf16"
    model = peer_models.load_bf16(path, activation) if bf16 else peer_models.load(path, activation)
    x = torch.from_numpy(bodies.hashed(int(rows), model.mlp[1].in_features))
    return (lambda: model(x.bfloat16()).float()) if bf16 else (lambda: model(x))


def select(rows, count, k):
    x = torch.from_numpy(bodies.hashed(int(rows), int(count)))
    return lambda: torch.topk(x, int(k), dim=-1).indices


def posembed(path, batch, length):
    model = peer_models.load(path)
    x = torch.from_numpy(bodies.hashed(int(batch), int(length), model.embedding.embedding_dim))
    return lambda: model(x)


COMMANDS = {"compress": compress, "select": select, "posembed": posembed}


def main():
    torch.set_num_threads(1)
    with torch.inference_mode():
        for line in sys.stdin:
            budget_s, command, *arguments = line.split()
            call = COMMANDS[command](*arguments)
            print(json.dumps({"seconds": seconds_of(float(budget_s), call),
                              "check": call().double().abs().mean().item()}), flush=True)


if __name__ == "__main__":
    main()
