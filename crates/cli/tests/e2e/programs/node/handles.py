"""Speaks as a Node program does, and sends descriptors with lines, in as few writes as it can."""
import json, os, socket

channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
lines = channel.makefile("rb")


def line(message):
    return json.dumps(message).encode() + b"\n"


def handle(message):
    return line({"cmd": "NODE_HANDLE", "type": "net.Native", "msg": message})


def hear():
    """The next message; a descriptor that comes with one has arrived, and is of no use."""
    while True:
        message = json.loads(next(lines))
        if not isinstance(message, dict) or message.get("cmd") != "NODE_HANDLE":
            return message
        channel.sendall(line({"cmd": "NODE_HANDLE_ACK"}))


channel.sendall(line({"cmd": "NODE_CLUSTER", "act": "online", "seq": 0}))
channel.sendall(line("ready"))
while True:
    if hear() != "go":
        continue
    with socket.socket() as one, open("/dev/null") as other:
        # The descriptor comes with the first byte of a piece whose second line it belongs to.
        socket.send_fds(channel, [line("before") + handle({"with": 1}) + line("between")], [one.fileno()])
        socket.send_fds(channel, [handle({"with": 2})], [other.fileno()])
        channel.sendall(handle({"without": 1}))
    channel.sendall(line([hear()["cmd"] for _ in range(3)]) + line("last"))
