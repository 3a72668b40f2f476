// A WebSocket server: open sockets hold a worker that leaves, so it tells its clients to come back, and closes them.
const http = require('http');
const { WebSocketServer } = require('ws');

const server = http.createServer((request, response) => response.end(`${process.pid}\n`));
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket) => {
    socket.send(JSON.stringify({ pid: process.pid }));
    socket.on('message', (text) => socket.send(`${text}`));
});

// Node's cluster tells a worker to leave by disconnecting it; its server has stopped listening then.
process.on('message', (message) => {
    if (message === 'suicide') {
        for (const socket of sockets.clients) {
            // "Service Restart" (RFC 6455 and its registry of codes): the client connects again.
            socket.close(1012, 'restarting');
        }
    }
});

server.listen(Number(process.env.PORT || 3000));
