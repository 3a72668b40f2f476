// Listens on the port that it is given, and closes it as soon as it does.
'use strict';
const server = require('http').createServer().listen(Number(process.argv[2]), () => server.close());
setInterval(() => {}, 1 << 30);
