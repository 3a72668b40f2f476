// Node's own primary with the least that keeps WORKERS servers alive. NODE_CLUSTER_SCHED_POLICY says how connections are shared.
"use strict";
const cluster = require("node:cluster");

cluster.setupPrimary({ exec: process.env.PROGRAM });
cluster.on("exit", () => cluster.fork());
for (let left = Number(process.env.WORKERS); left > 0; left--) cluster.fork();
