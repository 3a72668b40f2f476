"""A worker that is ready by its channel, answers what it is asked, and leaves when it is told to."""
import json, os, socket

channel = socket.socket(fileno=int(os.environ["SHIFTBOSS_CHANNEL_FD"]))
answered = 0

def say(message):
    channel.sendall(json.dumps(message).encode() + b"\n")

say({"cmd": "SHIFTBOSS_READY"})
say({"here": "is some information"})
for line in channel.makefile("rb"):
    message = json.loads(line)
    if message == "suicide":  # the notice: finish what is in hand, and leave
        say("got the notice")
        break
    elif isinstance(message, dict) and message.get("cmd") == "SHIFTBOSS_CALL":
        answered += 1
        answer = {"pong": answered, "asked": message["message"]}
        say({"cmd": "SHIFTBOSS_REPLY", "id": message["id"], "message": answer})
    else:
        say({"heard": message})
