"""JSON-RPC over a UNIX socket, as Stripewise and SPDK speak it."""

import json
import socket

from .process import PATIENCE, Failed


def call(path, method, seconds=PATIENCE, **params):
    """The result of a call.

    Raises Failed with the error that was answered.
    """
    request = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params:
        request["params"] = params
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode())
            answer = _answer(connection)
    except OSError as error:
        raise Failed(f"{method} at {path}: {error}") from error
    if "error" in answer:
        raise Failed(f"{method}: {answer['error'].get('message')}")
    return answer.get("result")


def _answer(connection):
    text = b""
    while piece := connection.recv(65536):
        text += piece
        try:
            return json.loads(text)
        except ValueError:
            continue
    raise Failed("the connection was closed before the answer was whole")
