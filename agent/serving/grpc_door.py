"""The gRPC door: a process of its own that asks the front over its Unix socket what stock gRPC clients ask it.

    python -m agent.serving.grpc_door CONTROL LEASH SETTINGS     (descriptors; settings as JSON)

    control socket (daemon)   out: {"up": port} or {"failed": reason}

Its end or its hanging never touches clients of HTTP. It ends when the daemon closes the control socket.

I/O: disk, network, process.
"""

import functools
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf import json_format

from agent.serving import clients, grpc_questions, grpc_schema, grpc_translate, lending, worker_leash
from agent.serving.grpc_front import AbandonedError, Answer, Asking, Front, FrontGoneError
from agent.serving.worker_wire import MAX_BODY, MAX_MESSAGE, NOBODY

logger = logging.getLogger(__name__)

_MARGIN_BYTES: Final = 1024 * 1024  # of a message beside its tensors
_THREADS: Final = 16
_QUEUED: Final = 128  # calls that wait for a thread; beyond it RESOURCE_EXHAUSTED
_SLACK_SECONDS: Final = 5.0  # the front gives up first, and says why
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class RefusedError(Exception):
    """The front said no: status code and its text."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Door:
    """The methods of the service. Each call runs in a thread of the server."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.address = ("", 0)  # where clients reach it, once that is known

    def handlers(self, protocol: grpc_schema.Protocol) -> grpc.GenericRpcHandler:
        """What `grpc.server` needs to serve `protocol`."""
        return grpc.method_handlers_generic_handler(
            protocol.service, {method.name: self._handler(method) for method in protocol.methods}
        )

    def _handler(self, method: grpc_schema.Method) -> grpc.RpcMethodHandler:
        codec = {
            "request_deserializer": method.request.FromString,
            "response_serializer": method.response.SerializeToString,
        }
        if method.streams:
            return grpc.stream_stream_rpc_method_handler(functools.partial(self._stream, method), **codec)
        call = self._infer if method.name == "ModelInfer" else self._tell
        return grpc.unary_unary_rpc_method_handler(_refusing(functools.partial(call, method)), **codec)

    def _infer(self, method: grpc_schema.Method, request: Any, context: grpc.ServicerContext) -> Any:
        answer = method.response()
        self._fill(answer, request, context)
        return answer

    def _stream(
        self, method: grpc_schema.Method, requests: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        """One answer for each request, in their order. An error ends nothing but its own request."""
        for request in requests:
            answer = method.response()
            try:
                self._fill(answer.infer_response, request, context)
            except (RefusedError, FrontGoneError, grpc_translate.BadMessageError) as error:
                answer = method.response(error_message=str(error))
                answer.infer_response.id = request.id
            except AbandonedError:
                return
            if grpc_translate.FINAL_WANTED in request.parameters:
                answer.infer_response.parameters[grpc_translate.FINAL].bool_param = True
            yield answer

    def _fill(self, answer: Any, request: Any, context: grpc.ServicerContext) -> None:
        asked = grpc_translate.asked(request)
        asking = Asking()
        context.add_callback(asking.abandon)  # called when the client has gone or its deadline has passed
        headers: dict[str, str | int] = {"Inference-Header-Content-Length": len(asked.header)}
        if asked.regions:
            headers |= self._who(context)
        found = self._front.ask(asked.path, [asked.header, *asked.pieces], headers=headers, asking=asking)
        grpc_translate.fill(answer, _accepted(found).body, found.json_bytes)

    def _tell(self, method: grpc_schema.Method, request: Any, context: grpc.ServicerContext) -> Any:
        question = grpc_questions.question(method.name, request)
        headers = self._who(context) if method.name.startswith(grpc_questions.MEMORY) else {}
        found = self._front.ask(question.path, None if question.body is None else [question.body], headers=headers)
        if method.name in grpc_questions.HEALTH:
            return method.response(**{method.response.DESCRIPTOR.fields[0].name: found.status == 200})
        body = bytes(_accepted(found).body)
        fields = grpc_questions.fields(method.name, request, body)
        return json_format.ParseDict(fields, method.response(), ignore_unknown_fields=True)

    def _who(self, context: grpc.ServicerContext) -> dict[str, str | int]:
        """The header that says whose shared memory it is about. Not remembered: ports change hands."""
        kind, _, address = context.peer().partition(":")  # as `ipv4:127.0.0.1:50412` or `ipv6:%5B::1%5D:50412`
        user = clients.tcp_user(_named(address), self.address) if kind in ("ipv4", "ipv6") else NOBODY
        return {lending.USER_HEADER: user}


def _named(address: str) -> tuple[str, int]:
    """Host and port; no host where it is not an address."""
    host, _, port = unquote(address).rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() else ("", 0)


def _accepted(answer: Answer) -> Answer:
    """Raises RefusedError: the front refused it."""
    if answer.status == 200:
        return answer
    try:
        text = str(json.loads(bytes(answer.body))["error"])
    except (ValueError, KeyError, TypeError):
        text = f"the endpoint answered {answer.status}"
    raise RefusedError(_CODES.get(answer.status, grpc.StatusCode.INTERNAL), text)


def _refusing(call: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    """`call` with its refusals as status codes."""

    def answered(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(request, context)
        except RefusedError as error:
            context.abort(error.code, str(error))
        except grpc_translate.BadMessageError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except FrontGoneError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except AbandonedError:
            context.abort(grpc.StatusCode.CANCELLED, "the client has gone")

    return answered


def open_door(settings: dict[str, Any]) -> tuple[grpc.Server, int]:
    """The server, started, and its port.

    Raises:
        RuntimeError: the address cannot be had.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc"),
        maximum_concurrent_rpcs=_THREADS + _QUEUED,
        options=[
            ("grpc.max_receive_message_length", MAX_BODY + _MARGIN_BYTES),
            ("grpc.max_send_message_length", MAX_BODY + _MARGIN_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    front = Front(Path(settings["uds_path"]), timeout_seconds=2 * settings["timeout_seconds"] + _SLACK_SECONDS)
    door = Door(front)
    server.add_generic_rpc_handlers((door.handlers(grpc_schema.load()),))
    port = server.add_insecure_port(settings["address"])
    door.address = (_named(settings["address"])[0], port)
    server.start()
    return server, port


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    own = worker_leash.bind(int(sys.argv[2]))
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the daemon, which ends us
        signal.signal(number, signal.SIG_IGN)
    try:
        _server, port = open_door(json.loads(sys.argv[3]))
    except RuntimeError as error:
        control.send(json.dumps({"failed": str(error)}).encode()[:MAX_MESSAGE])
        os._exit(1)
    control.send(json.dumps({"up": port}).encode())
    control.recv(1)  # until the daemon has gone
    os.close(own)
    os._exit(0)


if __name__ == "__main__":
    main()
