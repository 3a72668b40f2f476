// Node's cluster with the least that replaces the dead and rolls on SIGUSR2: each successor listens before its
// predecessor is told to leave.
"use strict";
const cluster = require("node:cluster");
const path = require("node:path");

cluster.setupPrimary({ exec: path.join(__dirname, "server.js") });
let workers = Number(process.env.WORKERS), ending = false, rolling = false;
cluster.on("exit", (worker) => {
    if (!ending && !worker.exitedAfterDisconnect) cluster.fork();
});
process.on("SIGUSR2", async () => {
    if (rolling) return;
    rolling = true;
    for (const old of Object.values(cluster.workers)) {
        if (!old.isConnected()) continue;
        const successor = cluster.fork();
        await new Promise((resolve) => successor.once("listening", resolve).once("exit", resolve));
        old.disconnect();
    }
    rolling = false;
});
process.on("SIGTERM", () => {
    ending = true;
    for (const worker of Object.values(cluster.workers)) worker.kill();
    cluster.disconnect(() => process.exit());
});
while (workers-- > 0) cluster.fork();
