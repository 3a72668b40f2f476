// An express server as everybody writes it; PORT is where it listens.
const express = require('express');

const app = express();
app.get('/', (request, response) => response.send(`${process.pid}\n`));
app.get('/slow', (request, response) => setTimeout(() => response.send(`${process.pid}\n`), 500));
app.listen(Number(process.env.PORT || 3000));
