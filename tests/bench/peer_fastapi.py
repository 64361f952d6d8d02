"""PyTorch behind FastAPI with one uvicorn worker, for peers.py: nsad's routes and bodies, as a
Python service would have them. Prints its port; ends when standard input does.
  peer_fastapi.py COMPRESS_WEIGHTS POSEMBED_WEIGHTS
"""
import json
import os
import signal
import socket
import sys
import threading

import fastapi
import numpy as np
import peer_models
import torch
import uvicorn

app = fastapi.FastAPI()
models = {}


def run(op, x, k):
    with torch.inference_mode():
        if op == "select":
            return torch.topk(x, k, dim=-1).indices
        return models[op](x)


async def answer(request, op):
    query = request.query_params
    body = await request.body()
    if request.headers["content-type"] == "application/json":
        document = json.loads(body)
        x = torch.tensor(document["input"])
        y = run(op, x, document.get("num_selected_blocks"))
        text = json.dumps({"indices" if op == "select" else "output": y.tolist(),
                           "shape": list(y.shape)})
        return fastapi.Response(text, media_type="application/json")
    shape = [int(size) for size in query["shape"].split(",")]
    x = torch.from_numpy(np.frombuffer(bytearray(body), np.float32).reshape(shape))
    y = run(op, x, int(query.get("num_selected_blocks", 0)))
    return fastapi.Response(y.numpy().tobytes(), media_type="application/octet-stream")


@app.post("/v1/compress")
async def compress(request: fastapi.Request):
    return await answer(request, "compress")


@app.post("/v1/select")
async def select(request: fastapi.Request):
    return await answer(request, "select")


@app.post("/v1/posembed")
async def posembed(request: fastapi.Request):
    return await answer(request, "posembed")


def end_with_input():
    while sys.stdin.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    torch.set_num_threads(1)
    models["compress"] = peer_models.load(sys.argv[1])
    models["posembed"] = peer_models.load(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=end_with_input, daemon=True).start()
    config = uvicorn.Config(app, log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
