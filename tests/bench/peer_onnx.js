// onnxruntime on one thread, for peers.py, through its Node binding: answers what protocol.h
// describes. node peer_onnx.js MODULES ONNX_FOLDER
"use strict";
const path = require("path");
const readline = require("readline");

const [modules, folder] = process.argv.slice(2);
const ort = require(path.resolve(modules, "onnxruntime-node"));

const BATCH_S = 0.0002;
const sessions = new Map();

async function session(name) {
  if (!sessions.has(name)) {
    sessions.set(name, await ort.InferenceSession.create(path.join(folder, `${name}.onnx`), {
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
      executionMode: "sequential",
      graphOptimizationLevel: "all",
    }));
  }
  return sessions.get(name);
}

// The numbers of measure.c's bench_fill().
function hashed(...shape) {
  const values = new Float32Array(shape.reduce((a, b) => a * b));
  for (let i = 0; i < values.length; i++) {
    let bits = Math.imul(i, 2654435761);
    bits = Math.imul(bits ^ (bits >>> 15), 2246822519);
    bits ^= bits >>> 13;
    values[i] = (bits >>> 8) * 2 ** -23 - 1;
  }
  return new ort.Tensor("float32", values, shape);
}

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

// As measure.c's bench_seconds().
async function secondsOf(budget, call) {
  const batchSeconds = async (batch) => {
    const begin = cpuSeconds();
    for (let i = 0; i < batch; i++) await call();
    return cpuSeconds() - begin;
  };
  await call();
  let batch = 1;
  let total = await batchSeconds(1);
  while (total < BATCH_S) {
    batch *= 2;
    total = await batchSeconds(batch);
  }
  let calls = batch;
  for (; total < budget; calls += batch) total += await batchSeconds(batch);
  return total / calls;
}

function mean(values) {
  let total = 0;
  for (const value of values) total += Math.abs(Number(value));
  return total / values.length;
}

// What each command feeds to which model.
const commands = {
  compress: (file, precision, activation, rows, inputs) => [
    file, { x: hashed(Number(rows), Number(inputs)) },
  ],
  select: (rows, n, k) => [
    "select",
    { x: hashed(Number(rows), Number(n)), k: new ort.Tensor("int64", [BigInt(k)], []) },
  ],
  posembed: (file, batch, length, dim) => [
    file, { x: hashed(Number(batch), Number(length), Number(dim)) },
  ],
};

async function answer(line) {
  const [budget, command, ...words] = line.split(" ");
  const work = commands[command](...words);
  const model = await session(work[0]);
  const seconds = await secondsOf(Number(budget), () => model.run(work[1]));
  return { seconds, check: mean((await model.run(work[1])).y.data) };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin }))
    console.log(JSON.stringify(await answer(line)));
}

main();
