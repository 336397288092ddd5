"""The smallest server there is: an instance whose own start costs next to nothing, so that what is added to it shows.

`python tiny.py HOST PORT` answers every request with the same 200 until SIGTERM. It needs nothing but Python, so that
any Python image can run it. One request per connection; the request is small and comes in one piece.
"""

import signal
import socket
import sys

BODY = b'{"jsonrpc":"2.0","id":1,"result":{}}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: 0123456789abcdef\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b"
) % (len(BODY), BODY)


def main(host: str, port: int) -> None:
    # As process 1 of a container it would not end by itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_server((host, port), backlog=128) as server:
        while True:
            connection, _ = server.accept()
            with connection:
                if connection.recv(65536):
                    connection.sendall(ANSWER)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
