// A web server on the first port, and on the second one too: in all workers, in the first, or where a file `none` is in
// none.
'use strict';
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');

const [port, more] = process.argv.slice(2).map(Number);
const server = () => http.createServer((request, response) => response.end(`worker ${cluster.worker.id}\n`));
server().listen(port, () => {
  const who = fs.existsSync('none') ? 'none' : process.env.WHO;
  if (who === 'all' || who === 'one' && cluster.worker.id === 1) server().listen(more);
});
