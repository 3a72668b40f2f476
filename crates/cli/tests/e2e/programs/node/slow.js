// A web server that computes for three seconds before it listens.
'use strict';
const until = Date.now() + 3000;
while (Date.now() < until);
require('./web.js');
