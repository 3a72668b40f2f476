"""A small asyncio HTTP server on descriptor 3. On TERM it stops accepting and finishes what it has; that is all it knows
of the one that runs it."""

import asyncio
import os
import signal
import socket
from urllib.parse import parse_qs, urlsplit

if os.path.exists("broken"):
    raise RuntimeError("the database driver is missing")

WORKER = os.environ.get("SHIFTBOSS_WORKER_ID", os.getpid())
# How long a connection may stay silent once the server is leaving.
PATIENCE = 5


async def main():
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
    connections = set()

    async def read_head(reader):
        """The next request's head; none if the client has gone, or is silent while the server leaves."""
        head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        left = asyncio.ensure_future(leaving.wait())
        try:
            await asyncio.wait({head, left}, return_when=asyncio.FIRST_COMPLETED)
            return await asyncio.wait_for(head, PATIENCE if leaving.is_set() else None)
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError):
            return None
        finally:
            left.cancel()

    async def serve(reader, writer):
        task = asyncio.current_task()
        connections.add(task)
        try:
            keep = True
            while keep and (head := await read_head(reader)) is not None:
                target = head.split(b" ", 2)[1].decode()
                wait = parse_qs(urlsplit(target).query).get("ms", ["0"])[0]
                await asyncio.sleep(int(wait) / 1000)
                keep = not leaving.is_set() and b"connection: close" not in head.lower()
                body = f"worker {WORKER}\n".encode()
                end = "keep-alive" if keep else "close"
                answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: {end}\r\n\r\n"
                writer.write(answer.encode() + body)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            connections.discard(task)

    listener = socket.socket(fileno=3)
    server = await asyncio.start_server(serve, sock=listener, backlog=1024)
    await leaving.wait()
    # What was accepted in this very moment is served a few turns of the loop later; a server that closes before has lost
    # it (an assertion of `asyncio.Server._attach`).
    asyncio.get_running_loop().remove_reader(listener)
    for _ in range(5):
        await asyncio.sleep(0)
    server.close()
    while connections:
        await asyncio.wait(set(connections))


asyncio.run(main())
