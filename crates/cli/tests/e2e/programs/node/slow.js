// A web server that computes for eight seconds before it listens.
'use strict';
const until = Date.now() + 8000;
while (Date.now() < until);
require('./web.js');
