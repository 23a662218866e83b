"""The resolver of all containers: one thread, one event loop, two sockets in each container's network
namespace.

``serve`` makes the sockets (in the calling thread, inside the namespace, unless the caller has made them there
with ``listen``) and returns when queries to 127.0.0.11:53 are taken; the loop answers them from the
``Directory`` or forwards them. The sockets wait in an epoll of their own, which the loop waits for: a container
is added without the loop's thread being woken. A container's sockets keep its network namespace alive, so they
are closed at once when its process ends (a pidfd says so) or on ``forget``.

Where nftables cannot be used inside the namespace, 127.0.0.11:53 is bound directly; then a program of the
container cannot bind 0.0.0.0:53 (see ``redirect``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.linux.netns import run_in
from orchestra.network.dns import message
from orchestra.network.dns.forward import Forwarder, HostServers, MakeSocket, host_socket
from orchestra.network.dns.redirect import USUAL_PORT, redirect
from orchestra.network.dns.zone import Directory, View
from orchestra.network.hosts import DNS_ADDRESS

TTL = 5
BURST = 64  # queries read of one socket before the others get their turn
MAX_WAITING = 256  # forwarded questions a container may have open
MAX_CONNECTIONS = 32
IDLE = 10.0

Sockets = tuple[socket.socket, socket.socket]  # UDP and TCP
_Source = tuple[Callable[["_Client"], None], "_Client"]  # who reads, and whose it is


class _Client:
    """One container: its view, its sockets and what it has going on."""

    def __init__(self, container_id: str, pid: int, view: View, sockets: Sockets | None) -> None:
        self.container_id = container_id
        self.pid = pid
        self.view = view
        self.pidfd = os.pidfd_open(pid)
        try:
            self.udp, self.tcp = sockets or _listen_in(pid)
        except BaseException:
            os.close(self.pidfd)
            raise
        self.waiting = 0
        self.connections = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.udp.close()
        self.tcp.close()
        os.close(self.pidfd)


def listen() -> Sockets:
    """The UDP and TCP sockets that get what is sent to 127.0.0.11:53 in the calling thread's namespace."""
    try:
        return _listen()
    except OSError as error:
        raise OrchestraError(f"cannot offer DNS at {DNS_ADDRESS} in the container: {error}") from None


def _listen() -> Sockets:
    try:
        udp, tcp = _bound(USUAL_PORT)
        ports = USUAL_PORT, USUAL_PORT
    except OSError:
        udp, tcp = _bound(0)
        ports = udp.getsockname()[1], tcp.getsockname()[1]
    try:
        redirect(*ports)
    except OSError:
        udp.close()
        tcp.close()
        return _bound(53)
    return udp, tcp


def _listen_in(pid: int) -> Sockets:
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return run_in(fd, _listen)
        finally:
            os.close(fd)
    except OSError as error:
        raise OrchestraError(f"cannot offer DNS at {DNS_ADDRESS} to process {pid}: {error}") from None


def _bound(port: int) -> Sockets:
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with contextlib.ExitStack() as undo:
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags))
        tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((DNS_ADDRESS, port))
        tcp.bind((DNS_ADDRESS, port))
        tcp.listen(32)
        undo.pop_all()
        return udp, tcp


class DnsServer:
    """``start`` before use. ``serve``, ``forget`` and ``stop`` may be called from any thread; ``directory``
    is where names are put in. ``servers`` are asked for unknown names unless a view names its own."""

    def __init__(
        self,
        directory: Directory | None = None,
        *,
        servers: Callable[[], Sequence[str]] | None = None,
        forwarder: Forwarder | None = None,
    ) -> None:
        self.directory = directory if directory is not None else Directory()
        self._servers = servers or HostServers()
        self._forwarder = forwarder or Forwarder()
        self._clients: dict[str, _Client] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group: asyncio.TaskGroup | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._poll: select.epoll | None = None  # while the loop runs; changed under the lock
        self._sources: dict[int, _Source] = {}  # by descriptor

    # ---- called from other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread (in the caller's network namespace: questions are forwarded from there)."""
        if self._thread is not None:
            return
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(ready)), name="orchestra-dns", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Ends the thread and closes all sockets. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._call(lambda: self._stopping.set() if self._stopping else None)
        thread.join()

    def serve(self, container_id: str, pid: int, view: View, sockets: Sockets | None = None) -> None:
        """Answers the container (its init is ``pid``) from now on; replaces an earlier view of it. ``sockets``
        are those of ``listen``, made in its namespace a moment ago: the server's from now on, also when it
        raises."""
        with self._lock:
            known = self._clients.get(container_id)
            if sockets is None and known is not None and known.pid == pid and not known.closed:
                known.view = view
                return
        try:
            client = _Client(container_id, pid, view, sockets)
        except BaseException as error:
            for one in sockets or ():
                one.close()
            if isinstance(error, ProcessLookupError):
                raise OrchestraError(f"container {container_id[:12]} has ended") from None
            raise
        with self._lock:
            old = self._clients.get(container_id)
            there = self._register(client)
            if there:
                self._clients[container_id] = client
        if not there:
            client.close()
            raise OrchestraError("the DNS server is not running")
        if old is not None:
            self._call(lambda: self._drop(old))

    def forget(self, container_id: str) -> None:
        """Closes the container's sockets (its namespace may go then). Idempotent."""
        with self._lock:
            client = self._clients.get(container_id)
        if client is not None:
            self._call(lambda: self._drop(client))

    def _call(self, func: Callable[[], object]) -> bool:
        loop = self._loop
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(func)
        except RuntimeError:  # closed meanwhile
            return False
        return True

    # ---- in the loop -------------------------------------------------------------------------------------

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                with self._lock:
                    self._poll = select.epoll()
                self._loop.add_reader(self._poll.fileno(), self._serve_ready, self._poll)
                ready.set()
                await self._stopping.wait()
                self._drop_all()
                raise asyncio.CancelledError  # ends what is still going on
        except asyncio.CancelledError:
            pass
        finally:
            with self._lock:  # nobody is added from here on
                poll, self._poll = self._poll, None
            self._drop_all()
            if poll is not None:
                self._loop.remove_reader(poll.fileno())
                poll.close()
            self._group = self._loop = None

    def _register(self, client: _Client) -> bool:
        """Under the lock, in any thread; False when the loop does not run."""
        if self._poll is None:
            return False
        for fd, read in (
            (client.udp.fileno(), self._read_udp),
            (client.tcp.fileno(), self._accept),
            (client.pidfd, self._drop),
        ):
            self._sources[fd] = (read, client)
            self._poll.register(fd, select.EPOLLIN)
        return True

    def _serve_ready(self, poll: select.epoll) -> None:
        # looked up before anything is closed, whose number might be another container's then
        found = [self._sources.get(fd) for fd, _ in poll.poll(0)]
        for source in found:
            if source is not None and not source[1].closed:
                source[0](source[1])

    def _drop_all(self) -> None:
        for _, client in list(self._sources.values()):
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client.closed:
            return
        with self._lock:
            for fd in (client.udp.fileno(), client.tcp.fileno(), client.pidfd):
                del self._sources[fd]
                if self._poll is not None:
                    self._poll.unregister(fd)  # closing is not enough while a child of ours has a copy
            if self._clients.get(client.container_id) is client:
                del self._clients[client.container_id]
            client.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(_guard(work))

    def _read_udp(self, client: _Client) -> None:
        for _ in range(BURST):
            try:
                data, peer = client.udp.recvfrom(message.MAX_UDP_SIZE)
            except OSError:
                return
            answer, query = self._local(client.view, data, udp=True)
            if query is None:
                _send(client, answer, peer)
            elif client.waiting >= MAX_WAITING:
                _send(client, message.respond(query, rcode=message.SERVFAIL, aa=False), peer)
            else:
                self._spawn(self._forward_udp(client, query, data, peer))

    def _local(self, view: View, data: bytes, *, udp: bool) -> tuple[bytes | None, message.Query | None]:
        """The answer we know ourselves, else the query to be forwarded."""
        try:
            query = message.parse_query(data)
        except message.FormatError:
            return message.refuse(data, message.FORMERR), None
        limit = query.udp_limit if udp else 65535
        if query.flags & message.OPCODE:
            return message.respond(query, rcode=message.NOTIMP, aa=False), None
        if query.edns_version:
            return message.respond(query, rcode=16, aa=False), None  # BADVERS
        if query.klass == message.IN:
            found = resolve(self.directory, view, query)
            if found is not None:
                rcode, answers = found
                return message.respond(query, answers, rcode=rcode, limit=limit), None
        if not view.forward:
            return message.respond(query, rcode=message.NXDOMAIN, aa=False), None
        return None, query

    async def _forward_udp(
        self, client: _Client, query: message.Query, data: bytes, peer: tuple[str, int]
    ) -> None:
        client.waiting += 1
        try:
            answer = await self._ask(client, query, data, tcp=False)
            if len(answer) > query.udp_limit:
                answer = message.respond(
                    query, [message.Answer(0, b"\0" * 65535)], limit=query.udp_limit, aa=False
                )
        finally:
            client.waiting -= 1
        _send(client, answer, peer)

    async def _ask(self, client: _Client, query: message.Query, data: bytes, *, tcp: bool) -> bytes:
        servers = client.view.servers or tuple(self._servers())
        make = _socket_maker(client)
        answer = await self._forwarder.ask(query, data, servers, tcp=tcp, make=make)
        return answer or message.respond(query, rcode=message.SERVFAIL, aa=False)

    def _accept(self, client: _Client) -> None:
        try:
            link, _ = client.tcp.accept()
        except OSError:
            return
        if client.connections >= MAX_CONNECTIONS:
            link.close()
            return
        link.setblocking(False)
        self._spawn(self._talk(client, link))

    async def _talk(self, client: _Client, link: socket.socket) -> None:
        """Questions of one TCP connection, one after the other."""
        client.connections += 1
        try:
            reader, writer = await asyncio.open_connection(sock=link)
            try:
                while not client.closed:
                    async with asyncio.timeout(IDLE):
                        (length,) = struct.unpack("!H", await reader.readexactly(2))
                        data = await reader.readexactly(length)
                    answer, query = self._local(client.view, data, udp=False)
                    if query is not None:
                        answer = await self._ask(client, query, data, tcp=True)
                    if answer is None:
                        return
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    async with asyncio.timeout(IDLE):
                        await writer.drain()
            finally:
                writer.close()
        finally:
            client.connections -= 1


def resolve(
    directory: Directory, view: View, query: message.Query
) -> tuple[int, list[message.Answer]] | None:
    """(rcode, answers) for names and addresses of our networks; None for what is not ours to answer."""
    if query.type == message.PTR:
        address = message.reverse_address(query.name)
        name = directory.reverse(view, address) if address else None
        try:
            return (message.NOERROR, [message.pointer_answer(name, TTL)]) if name else None
        except message.FormatError:  # a name that DNS cannot carry
            return None
    addresses = directory.lookup(view, query.name)
    if addresses is None:
        return None
    if not addresses:
        return message.NXDOMAIN, []
    answers = [message.address_answer(address, TTL) for address in addresses]
    return message.NOERROR, [a for a in answers if query.type in (a.type, message.ANY)]


def _socket_maker(client: _Client) -> MakeSocket:
    """A view's own server on 127.0.0.0/8 means the container's loopback; every other is asked from the
    host."""
    if not any(server.startswith("127.") or server == "::1" for server in client.view.servers):
        return host_socket

    def make(address: str, kind: int) -> socket.socket:
        if not (address.startswith("127.") or address == "::1"):
            return host_socket(address, kind)
        fd = os.open(f"/proc/{client.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return run_in(fd, lambda: host_socket(address, kind))
        finally:
            os.close(fd)

    return make


def _send(client: _Client, answer: bytes | None, peer: tuple[str, int]) -> None:
    if answer is not None and not client.closed:
        with contextlib.suppress(OSError):
            client.udp.sendto(answer, peer)


async def _guard(work: Coroutine[Any, Any, None]) -> None:
    """One client's trouble (it hung up, timed out, sent nonsense) must not end the group."""
    with contextlib.suppress(OSError, TimeoutError, EOFError, ValueError, struct.error):
        await work
