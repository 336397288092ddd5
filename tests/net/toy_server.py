"""A small instance for the agent's tests: run as a program, it serves HTTP on a port and misbehaves as told.

GET answers 200 with the incarnation, or 503 while the file named by --unready exists. POST /exit/<status> ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--starts", help="file that gets one line per start")
    parser.add_argument("--gate", help="FIFO to read to the end before listening")
    parser.add_argument("--unready", help="503 while this file exists")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--child", help="file for the pid of a child in the same group")
    parser.add_argument("--daemon", help="file for the pid of a child in a session of its own")
    parser.add_argument("--status", type=int, help="exit with it instead of listening")
    parser.add_argument("--deaf", action="store_true", help="never listen")
    parser.add_argument("--lose-port", type=int, default=0, help="complain of a taken port this often (see --starts)")
    parser.add_argument("--listening", help="file that gets one line, the monotonic time, per listen")
    options = parser.parse_args()
    if options.starts:
        with open(options.starts, "a", encoding="utf-8") as file:
            file.write(f"{os.environ['MOORAGE_INCARNATION']} {os.getpid()}\n")
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for path, apart in ((options.child, False), (options.daemon, True)):
        if path:
            child = subprocess.Popen(["sleep", "1000"], start_new_session=apart)
            Path(path).write_text(str(child.pid), encoding="utf-8")
    if options.status is not None:
        print("about to fail", file=sys.stderr, flush=True)
        sys.exit(options.status)
    if options.starts and len(Path(options.starts).read_text(encoding="utf-8").splitlines()) <= options.lose_port:
        sys.exit("OSError: [Errno 98] Address already in use")
    if options.gate:
        Path(options.gate).read_bytes()
    if options.deaf:
        signal.pause()
    serve(options.port, options.unready, options.listening)


def serve(port: int, unready: str | None, listening: str | None) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        if listening:
            with open(listening, "a", encoding="utf-8") as file:
                file.write(f"{time.monotonic()}\n")
        print(f"{os.environ['FLY_MACHINE_ID']} listens", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    head = connection.recv(65536).decode("ascii", "replace")
                    if head.startswith("POST /exit/"):
                        os._exit(int(head.split("/")[2].split()[0]))
                    busy = unready is not None and os.path.exists(unready)
                    status = "503 Service Unavailable" if busy else "200 OK"
                    body = os.environ["MOORAGE_INCARNATION"]
                    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
                    connection.sendall(answer.encode())
                except OSError:
                    continue


if __name__ == "__main__":
    main()
