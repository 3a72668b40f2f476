// A worker of Node's cluster that says what it has heard and what it has open.
'use strict';
const fs = require('fs');

let heard = 0;
process.on('message', message => {
  heard++;
  if (message === 'leave') return process.disconnect();
  process.send({ heard, files: fs.readdirSync('/proc/self/fd').length, resources: process.getActiveResourcesInfo() });
});
process.send('up');
