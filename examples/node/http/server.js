// A plain server. It knows nothing of who started it.
const http = require('http');

const port = Number(process.env.PORT || 3000);
http.createServer((request, response) => {
    response.end(`${process.pid}\n`);
}).listen(port);
