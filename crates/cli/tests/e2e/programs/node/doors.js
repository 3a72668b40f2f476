// Listens at the port that it is given and at any other, closes that and listens at a third.
'use strict';
const cluster = require('cluster');
const http = require('http');

const server = () => http.createServer((request, response) => response.end(`worker ${cluster.worker.id}\n`));
const any = server();
any.listen(0, () => any.close(() => server().listen(0, () => server().listen(Number(process.argv[2])))));
