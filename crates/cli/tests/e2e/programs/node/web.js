// A web server as one writes it, on the port that it is given. `GET /slow?ms=N` answers N ms later.
'use strict';
const cluster = require('cluster');
const http = require('http');

const server = http.createServer((request, response) => {
  const wait = Number(new URL(request.url, 'http://x').searchParams.get('ms'));
  setTimeout(() => response.end(`worker ${cluster.worker.id}\n`), wait);
});
server.listen(Number(process.argv[2]));
