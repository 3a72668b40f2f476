"""A WSGI application: `GET /slow?ms=N` answers N ms later. With the file `broken` beside the app it cannot be imported."""

import os
import time
from urllib.parse import parse_qs

if os.path.exists("broken"):
    raise RuntimeError("the database driver is missing")

WORKER = os.environ["SHIFTBOSS_WORKER_ID"]


def app(environ, start_response):
    wait = parse_qs(environ.get("QUERY_STRING", "")).get("ms", ["0"])[0]
    time.sleep(int(wait) / 1000)
    body = f"worker {WORKER}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
