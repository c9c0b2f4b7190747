// Workers asleep in Atomics.wait, under functions that are interpreted at first and compiled later.
const { Worker, isMainThread } = require('worker_threads');

const NAP_MS = 4;
const DEPTH = 20;

function descend(cell, depth) {
  if (depth === 0) {
    Atomics.wait(cell, 0, 0, NAP_MS);
    return 0;
  }
  // By a builtin of V8, which has no unwind information.
  return [depth].map((level) => descend(cell, level - 1))[0] + 1;
}

if (isMainThread) {
  for (let i = 0; i < 2; i++) new Worker(__filename);
  process.stdin.on('data', () => {});
  process.stdin.on('end', () => process.exit(0));
  setInterval(() => {}, NAP_MS);
  setTimeout(() => console.log('ready', process.pid), 300);
} else {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  for (;;) descend(cell, DEPTH);
}
