"""The WSGI program of the bench's gunicorn row: the same answers as the built-in worker gives to a GET."""

import os
import time
from urllib.parse import parse_qs


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        wanted = parse_qs(environ["QUERY_STRING"]).get("ms", ["0"])[0]
        time.sleep(min(int(wanted), 60_000) / 1000)
    worker = os.environ.get("SHIFTBOSS_WORKER_ID", "-")
    generation = os.environ.get("SHIFTBOSS_GENERATION", "-")
    body = f"worker {worker} generation {generation}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
