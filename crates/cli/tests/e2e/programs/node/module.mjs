// A module that waits for something before it listens.
import cluster from 'node:cluster';
import { createServer } from 'node:http';
import { setTimeout } from 'node:timers/promises';

await setTimeout(10);
const about = {
  worker: cluster.isWorker,
  primary: cluster.isPrimary,
  connected: process.connected,
  variables: Object.keys(process.env).filter(name => /^NODE_(CHANNEL|UNIQUE)/.test(name)),
};
createServer((request, response) => response.end(JSON.stringify(about))).listen(Number(process.argv[2]));
