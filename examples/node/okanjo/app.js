// Two types of OkanjoWorker in one file, as for okanjo-app-broker. `node app.js` still runs it with that.
const cluster = require('cluster');
const http = require('http');
const OkanjoApp = require('okanjo-app');
const OkanjoBroker = require('okanjo-app-broker');
const OkanjoWorker = require('okanjo-app-broker/OkanjoWorker');

const app = new OkanjoApp({
    port: Number(process.env.PORT || 3000),
    api: { workerCount: 2 },
    jobs: { workerCount: 1 },
});

class Api extends OkanjoWorker {
    async init() {
        this.server = http.createServer((request, response) => response.end(`${process.pid}\n`));
        this.server.listen(this.app.config.port);
    }

    async prepareForShutdown() {
        this.unbindProcessSignals();
        // Whoever is being served is served.
        this.server.close(() => this.shutdown());
        this.server.closeIdleConnections();
    }
}

class Jobs extends OkanjoWorker {
    async init() {
        this.done = 0;
        this.timer = setInterval(() => {
            this.done += 1;
            process.send({ type: 'ops', data: { done: this.done } });
            process.send({ job: this.done });
        }, 100);
    }

    async prepareForShutdown() {
        clearInterval(this.timer);
        process.send({ farewell: this.done }, () => this.shutdown());
    }
}

if (cluster.isMaster) {
    new OkanjoBroker(app, 'api', app.config.api);
    new OkanjoBroker(app, 'jobs', app.config.jobs);
} else if (process.env.worker_type === 'api') {
    new Api(app);
} else if (process.env.worker_type === 'jobs') {
    new Jobs(app);
} else {
    app.report('unknown worker type', { worker_type: process.env.worker_type });
    process.exit(1);
}
