"""Says that it is ready, as a Node program does, and shuts a half of its channel: SHUT_RD, SHUT_WR, or SHUT_RDWR."""
import os, socket, sys, time

channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
channel.sendall(b'{"cmd":"NODE_CLUSTER","act":"online","seq":0}\n"ready"\n')
time.sleep(0.2)
channel.shutdown(getattr(socket, sys.argv[1]))
time.sleep(1000)
