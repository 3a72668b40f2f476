// Sends COUNT messages of a hundred bytes, or of LENGTH more than thirty, to its primary, then writes how many a second into the file DONE, and stays.
"use strict";
const count = Number(process.env.COUNT);
const text = ".".repeat(Number(process.env.LENGTH || 72));
let number = 0, gone = 0, begun;
const one = () => {
    if (++gone < count) return;
    const rate = count / (Number(process.hrtime.bigint() - begun) / 1e9);
    require("node:fs").writeFileSync(process.env.DONE, String(rate));
};
const go = () => {
    while (number < count) {
        if (!process.send({ number: 1000000 + number++, text }, undefined, {}, one)) return setImmediate(go);
    }
};
setTimeout(() => { begun = process.hrtime.bigint(); go(); }, 1000);
