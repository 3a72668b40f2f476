// Tries whether it can listen on the second port, and serves on the first.
'use strict';
const http = require('http');
const net = require('net');

const [port, other] = process.argv.slice(2).map(Number);
const probe = net.createServer().listen(other, () => probe.close(() => {
  http.createServer((request, response) => response.end('worker')).listen(port);
}));
