"""What the Python rows of `cargo xtask bench --peers` add to gunicorn: a worker says when it has loaded the program."""

import os
import time


def _say_there(pid):
    file = os.open(os.environ["FIRST_LINES"], os.O_WRONLY | os.O_APPEND)
    os.write(file, f"ready {pid} {time.monotonic_ns()}\n".encode())
    os.close(file)


def post_fork(server, worker):
    if os.environ.get("CRASH"):
        _say_there(os.getpid())
        os._exit(1)


def post_worker_init(worker):
    # Under another manager it is the gunicorn above this process that is that manager's worker.
    _say_there(os.getppid() if os.environ.get("FIRST_LINE_OF") == "parent" else os.getpid())
