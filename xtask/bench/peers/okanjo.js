// okanjo-app-broker as its README shows it: primary and workers in one file. SIGUSR2 recycles.
"use strict";
const cluster = require("node:cluster");
const OkanjoApp = require("okanjo-app");
const OkanjoBroker = require("okanjo-app-broker");

const app = new OkanjoApp({});
if (cluster.isPrimary) {
    // What it reports of a death goes to standard error, and nowhere else.
    const broker = new OkanjoBroker(app, "web", { workerCount: Number(process.env.WORKERS) });
    process.on("SIGUSR2", () => broker.recycleWorkers());
    process.on("SIGTERM", () => {
        app.gracefulShutdown = true;
        broker.drainWorkers();
        setInterval(() => Object.keys(cluster.workers).length || process.exit(), 50);
    });
} else {
    class Worker extends OkanjoBroker.OkanjoWorker {
        async init() {
            this.server = require("./server.js");
        }
        async prepareForShutdown() {
            this.server.close(() => this.shutdown());
        }
    }
    new Worker(app);
}
