// One worker sends COUNT messages of a hundred bytes, or of LENGTH more than thirty, as fast as it can; the primary looks at each. Prints messages a
// second and the primary's CPU in µs a message. BROKER=okanjo: through okanjo-app-broker.
"use strict";
const cluster = require("node:cluster");
const count = Number(process.env.COUNT);

if (cluster.isPrimary) {
    let seen = 0, begun, cpu;
    const take = (message) => {
        if (message.number !== 1000000 + seen) throw new Error("out of order");
        begun ??= process.hrtime.bigint();
        cpu ??= process.cpuUsage();
        if (++seen < count) return;
        const used = process.cpuUsage(cpu);
        console.log((count - 1) / (Number(process.hrtime.bigint() - begun) / 1e9));
        console.log((used.user + used.system) / count);
        process.exit();
    };
    if (process.env.BROKER === "okanjo") {
        const OkanjoBroker = require("okanjo-app-broker");
        const app = new (require("okanjo-app"))({});
        new OkanjoBroker(app, "sender", { workerCount: 1 }).on("worker_message", take);
    } else {
        cluster.fork().on("message", take);
    }
} else {
    const text = ".".repeat(Number(process.env.LENGTH || 72));
    let number = 0;
    const go = () => {
        while (number < count) {
            const message = { number: 1000000 + number++, text };
            // What waits is no message lost: it is written before the callback.
            if (!process.send(message, undefined, {}, () => {})) return setImmediate(go);
        }
    };
    go();
}
