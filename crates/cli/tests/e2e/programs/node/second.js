// A web server on the first port, and 1.5 s later on the second one, too. SIGTERM closes both; where a file `half` is, the second
// one does not come, and SIGTERM keeps it from everything else for 6 s.
'use strict';
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');

const [port, more] = process.argv.slice(2).map(Number);
const half = fs.existsSync('half');
const servers = [];
const listen = at => void servers.push(http.createServer((request, response) => response.end(`worker ${cluster.worker.id}\n`)).listen(at));
listen(port);
if (!half) setTimeout(listen, 1500, more);
process.on('SIGTERM', () => {
  if (half) return void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6000);
  for (const server of servers) server.close();
  process.disconnect();
});
