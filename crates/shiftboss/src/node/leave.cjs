'use strict';
// Loaded before a program of Node's cluster by shiftboss. It does nothing until the program is told to leave; from then on each
// response ends its connection, and connections that are kept end once they have been idle for a while. Without it a client
// that keeps its connection busy keeps the worker, and one that is about to use it finds it closed.
const IDLE_MS = 1000;

const options = process.env.NODE_OPTIONS || '';
const rest = options.replace(/ ?--require="[^"]*leave\.cjs"/, '');
// For this process alone.
if (rest) process.env.NODE_OPTIONS = rest; else delete process.env.NODE_OPTIONS;

function heard(message) {
    if (!message || message.cmd !== 'NODE_SHIFTBOSS_LEAVE') return;
    process.removeListener('internalMessage', heard);
    const http = require('http');
    const waiting = new Set();
    const closeIdle = http.Server.prototype.closeIdleConnections;
    if (!closeIdle) return;
    const closeSoon = function () {
        if (waiting.has(this)) return;
        waiting.add(this);
        const close = () => { waiting.delete(this); closeIdle.call(this); };
        // What has connections does not end before; what has none does not wait for it.
        setTimeout(close, IDLE_MS).unref();
    };
    http.Server.prototype.closeIdleConnections = closeSoon;
    // A Node without OpenSSL has none.
    try { require('https').Server.prototype.closeIdleConnections = closeSoon; } catch {}
    const { channel } = require('diagnostics_channel');
    channel('http.server.request.start').subscribe(({ response }) => { response.shouldKeepAlive = false; });
    channel('http.server.response.finish').subscribe(({ server }) => closeSoon.call(server));
}

// The program's own listeners do not matter: an internal message is nobody's.
if (require('cluster').isWorker) process.prependListener('internalMessage', heard);
