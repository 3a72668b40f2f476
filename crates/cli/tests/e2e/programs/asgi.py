"""An ASGI application: `GET /slow?ms=N` answers N ms later. With the file `broken` beside the app it cannot be imported."""

import asyncio
import os
from urllib.parse import parse_qs

if os.path.exists("broken"):
    raise RuntimeError("the database driver is missing")

WORKER = os.environ["SHIFTBOSS_WORKER_ID"]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    wait = parse_qs(scope["query_string"].decode()).get("ms", ["0"])[0]
    await asyncio.sleep(int(wait) / 1000)
    body = f"worker {WORKER}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
