// The worker of the Node rows of `cargo xtask bench --peers`: an HTTP server that finishes what it has when it is told
// to leave, as the documentation of each manager asks of one. It says when it is there, and crashes if that is asked.
"use strict";
const fs = require("node:fs");
const http = require("node:http");

const sayThere = () => {
    const line = `ready ${process.pid} ${process.hrtime.bigint()}\n`;
    if (process.env.FIRST_LINES) fs.appendFileSync(process.env.FIRST_LINES, line);
};
if (process.env.CRASH) {
    sayThere();
    process.exit(1);
}
const server = http.createServer((request, response) => {
    const slow = /^\/slow\?ms=(\d+)$/.exec(request.url);
    const answer = () => response.end(`worker ${process.pid}\n`);
    if (slow) setTimeout(answer, Math.min(Number(slow[1]), 60000));
    else answer();
});
const leave = () => server.close(() => process.exit(0));
process.on("SIGINT", leave);
process.on("SIGTERM", leave);
const place = process.env.LISTEN_FDS ? { fd: 3 } : { port: Number(process.env.PORT), host: "127.0.0.1" };
server.listen(place, sayThere);
module.exports = server;
