// Sends each connection away, and writes to a file when it could say more, and when it is told something.
'use strict';
const fs = require('fs');
const net = require('net');

const write = () => fs.appendFileSync('after', '.');
process.on('message', write);
net.createServer(socket => {
  process.send({ take: 1 }, socket);
  process.send({ after: 1 }, write);
}).listen(Number(process.argv[2]));
