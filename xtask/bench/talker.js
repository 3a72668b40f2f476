// Sends COUNT messages of a hundred bytes to its primary, then writes the file DONE, and stays.
"use strict";
const count = Number(process.env.COUNT);
const text = ".".repeat(72);
let number = 0, gone = 0;
const one = () => { if (++gone === count) require("node:fs").writeFileSync(process.env.DONE, ""); };
const go = () => {
    while (number < count) {
        if (!process.send({ number: 1000000 + number++, text }, undefined, {}, one)) return setImmediate(go);
    }
};
setTimeout(go, 1000);
