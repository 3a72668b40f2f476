// A worker of okanjo-app-broker that closes its server before it ends.
'use strict';
const http = require('http');
const OkanjoApp = require('okanjo-app');
const OkanjoWorker = require('okanjo-app-broker/OkanjoWorker');

class Web extends OkanjoWorker {
  async init() {
    this.server = http.createServer((request, response) => response.end(`worker ${process.env.worker_type}`));
    this.server.listen(Number(process.argv[2]));
    process.on('message', message => message === 'report' && process.send({ type: 'ops', data: 1 }) && process.send({ type: 'other' }));
  }

  async prepareForShutdown() {
    console.log('prepares');
    this.unbindProcessSignals();
    this.server.close(() => this.shutdown());
  }
}

new Web(new OkanjoApp({}));
