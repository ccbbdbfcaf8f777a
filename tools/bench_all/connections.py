"""Idle connections, of the wire protocol as far as they need it."""

import resource
import socket
import subprocess

from bench_all.processes import START_SECONDS, Failed

FRAME_HEADER_BYTES = 32
FRAME_ALIGNMENT = 16
FRAME_TYPE_WELCOME = 4


def raised_descriptor_limit():
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return limit


def recorded_hello(tool):
    """The first frame of a client, taken down from the tool: every connection may send the same."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(START_SECONDS)
        process = subprocess.Popen(
            [tool, "-u", f"127.0.0.1:{server.getsockname()[1]}", "status"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            connection, _ = server.accept()
            with connection:
                return read_frame(connection)
        finally:
            process.kill()
            process.wait()


def read_frame(connection):
    header = read_bytes(connection, FRAME_HEADER_BYTES)
    length = int.from_bytes(header[:4], "little")
    return header + read_bytes(connection, length + -length % FRAME_ALIGNMENT)


def read_bytes(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise Failed("a connection was closed")
        data += piece
    return data


def open_connection(address, hello):
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=START_SECONDS)
    try:
        connection.sendall(hello)
        if read_frame(connection)[4] != FRAME_TYPE_WELCOME:
            raise Failed("a connection was refused")
    except BaseException:
        connection.close()
        raise
    return connection
