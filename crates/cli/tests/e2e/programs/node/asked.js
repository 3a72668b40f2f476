// Does what it is told, in JavaScript, and writes what came of it: a line each. All else that it hears is kept.
'use strict';

const names = ['child_process', 'cluster', 'dgram', 'fs', 'http', 'https', 'net', 'os'];
const modules = names.map(name => require(name));
const Told = (async () => {}).constructor;

const kept = {
  heard: [],
  servers: [],
  /** Listens; the address, or the error that was emitted. */
  listen(server, ...where) {
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(...where, () => {
        server.off('error', reject);
        kept.servers.push(server);
        resolve(server.address());
      });
    });
  },
  /** An HTTP server that says who has answered. */
  web: () => modules[names.indexOf('http')].createServer((request, response) => response.end(`worker ${cluster.worker.id}`)),
  bind(socket, ...where) {
    return new Promise((resolve, reject) => {
      socket.once('error', reject);
      socket.bind(...where, () => resolve(socket.address()));
    });
  },
  soon: what => void setTimeout(what, 20),
};
const cluster = modules[names.indexOf('cluster')];

process.on('message', async (message, handle) => {
  if (typeof message?.told !== 'string') return kept.heard.push(message);
  const write = what => console.log(JSON.stringify({ number: message.number, ...what }));
  try {
    const done = await new Told(...names, 'kept', 'handle', message.told)(...modules, kept, handle);
    write({ done: done ?? null });
  } catch (error) {
    write({ threw: { ...error, message: error.message } });
  }
});
process.send('ready');
