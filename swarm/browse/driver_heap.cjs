// Loaded into Playwright's driver before its own code: collects its garbage while there is little.
//
// V8 lets the old generation grow by hundreds of megabytes before it looks at it for the first time,
// on machines with much memory. What a page leaves in the driver lives long enough to get there:
// about 0.2 MB a page, although the driver keeps none of it. A collection takes some 50 ms.
'use strict';

const v8 = require('node:v8');
const vm = require('node:vm');

const LOOK_MS = 5000;
// Growth since the last collection that is worth another.
const GROWTH_BYTES = 16 * 1024 * 1024;

v8.setFlagsFromString('--expose-gc');
const collect = vm.runInNewContext('gc');
let kept = 0;

setInterval(() => {
  // A large heap that is alive is not to be looked through again and again.
  if (process.memoryUsage().heapUsed < kept + Math.max(GROWTH_BYTES, kept / 2)) return;
  collect();
  kept = process.memoryUsage().heapUsed;
}, LOOK_MS).unref();
