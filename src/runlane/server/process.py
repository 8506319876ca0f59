"""One server or worker process: its socket, its signals, and the order in which it starts and stops.

Start: socket, graphs, database and runtime, HTTP. Stop: admission closes, runs finish or are handed back, open streams
are closed, HTTP ends, the database is closed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.types import ASGIApp

from runlane.agents.host import SYNC_THREADS_NAME
from runlane.agents.registry import load_registry
from runlane.server.app import create_app
from runlane.server.config.http_section import HttpSection
from runlane.server.http.bounded_http import OTHER_FILES, bounded_http, limits_of
from runlane.server.http.bounded_socket import BoundedSocket
from runlane.server.http.listener import address_of, bind, is_loopback, not_available, url_of
from runlane.server.probes import Probes, answering
from runlane.server.service import Service
from runlane.settings import Settings

log = logging.getLogger("runlane.server")

#: Objects made since the last collection that start the next one; the default of 700 is made for small scripts.
YOUNG_OBJECTS: Final = 10_000
#: How long one thread may keep the interpreter while another wants it; Python's own is five times as long.
SWITCH_INTERVAL_S: Final = 0.001
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Responses that are still being written once all runs are handed back get this long.
RESPONSES_GRACE_S: Final = 5
#: Longer than clients keep an idle connection, so that none is closed while a request is on its way to it.
KEEP_ALIVE_S: Final = 75
#: How long ended threads may take to be gone.
THREADS_GRACE_S: Final = 1.0


class StopSignals:
    """SIGTERM and SIGINT. The first starts the drain; the second ends its grace time; more change nothing.

    No signal that can be handled makes the process lose work: only SIGKILL ends it at once.
    """

    def __init__(self) -> None:
        self.name = ""
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def install(self) -> None:
        """Take the signals. Until :meth:`attach` nothing is worth a drain, and they raise KeyboardInterrupt."""
        for number in SIGNALS:
            signal.signal(number, self._received)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on tell *loop*."""
        self._loop = loop
        self.install()  # imported code may have taken them

    def ignore(self) -> None:
        """Ignore further signals: the process ends by itself."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _received(self, number: int, _: FrameType | None) -> None:
        if self._loop is None:
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(self._tell, signal.Signals(number).name)

    def _tell(self, name: str) -> None:
        if not self.first.is_set():
            self.name = name
            self.first.set()
        elif not self.second.is_set():
            log.info("server.drain_hurried signal=%s", name)
            self.second.set()
        else:
            log.warning("server.signal_ignored signal=%s why=runs_are_being_handed_back", name)


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers, the second of which would skip the drain.

    Args:
        announce: Called with each socket once it listens.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[socket.socket], None]) -> None:
        super().__init__(config)
        self._announce = announce

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            self._announce(listener)


def _server_is_ready(app: Starlette, listener: socket.socket) -> None:
    url = url_of(listener)
    log.info("server.ready url=%s address=%s pid=%d", url, address_of(listener), os.getpid())
    section: HttpSection = app.state.service.section
    if "ui" not in section.disabled:
        log.info("console.ready url=%s", f"{url}{section.mount_prefix}/console/")


def _probes_are_ready(listener: socket.socket) -> None:
    log.info("worker.probes_ready url=%s address=%s", url_of(listener), address_of(listener))


def serve(config: Path, settings: Settings, *, host: str, port: int, listener: socket.socket | None = None) -> int:
    """Serve the graphs of the ``langgraph.json`` at *config* until a signal asks to stop; return the exit code.

    Runs in the main thread. Leaves SIGTERM and SIGINT ignored, as the process is about to end.

    Args:
        listener: A bound socket to listen on, instead of *host* and *port*.

    Raises:
        ConfigurationError: The port, the file, a graph or the database cannot be used; nothing was started.
        StoreUnavailable: The database cannot be opened, or another process owns it.
    """
    signals = StopSignals()
    signals.install()
    try:
        _allow_open_files(settings.max_connections + OTHER_FILES)
        listener = listener or bind(host, port)
        app = create_app(config, settings, registry=load_registry(config), loopback=is_loopback(listener))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            signals.attach(runner.get_loop())
            runner.run(_serve(app, listener, signals))
    except KeyboardInterrupt:
        log.info("server.stopped while=starting")
    finally:
        signals.ignore()
        if listener is not None:
            listener.close()
    return 0


def work(config: Path, settings: Settings, *, host: str, probe_port: int | None) -> int:
    """Execute runs of the graphs of *config* until a signal asks to stop; return the exit code.

    Args:
        probe_port: Where ``/ok`` and ``/metrics`` are answered, on *host*; by default nowhere.

    Raises:
        ConfigurationError: The port, the file, a graph or the database cannot be used; nothing was started.
        StoreUnavailable: The database cannot be opened.
    """
    signals = StopSignals()
    signals.install()
    listener = None
    try:
        listener = None if probe_port is None else bind(host, probe_port)
        # Without an API, the application is what graphs reach by a client without an address, and what answers probes.
        app = create_app(config, settings, registry=load_registry(config))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            signals.attach(runner.get_loop())
            runner.run(_work(app, listener, signals))
    except KeyboardInterrupt:
        log.info("worker.stopped while=starting")
    finally:
        signals.ignore()
        if listener is not None:
            listener.close()
    return 0


async def _work(app: Starlette, listener: socket.socket | None, signals: StopSignals) -> None:
    def probes() -> _Uvicorn:
        config = uvicorn_config(
            app, Probes(app), lifespan="off", log_config=None, timeout_graceful_shutdown=RESPONSES_GRACE_S
        )
        return _Uvicorn(config, _probes_are_ready)

    logging.getLogger("uvicorn.error").addFilter(_is_news)
    async with app.router.lifespan_context(app), answering(listener, probes):
        _share_the_interpreter()
        _share_the_traces(app.state.service)
        _spare_the_collector()
        service: Service = app.state.service
        log.info("worker.ready worker_id=%s pid=%d", service.runtime.worker.worker_id, os.getpid())
        await signals.first.wait()
        service.runtime.submitter.close()
        log.info("worker.draining signal=%s", signals.name)
        await _drain(service, signals)
    log.info("worker.stopped")


async def _serve(app: Starlette, listener: socket.socket, signals: StopSignals) -> None:
    address = listener.getsockname()[:2]
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    async with app.router.lifespan_context(app):
        _warn_if_open(app, listener)
        _share_the_interpreter()
        _share_the_traces(app.state.service)
        _spare_the_collector()
        server = _Uvicorn(
            uvicorn_config(
                app,
                app.state.front,
                lifespan="off",  # entered around the server, so that its errors reach the caller as they are
                log_config=None,
                timeout_graceful_shutdown=RESPONSES_GRACE_S,
            ),
            partial(_server_is_ready, app),
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        asked = asyncio.create_task(signals.first.wait())
        try:
            await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                app.state.service.runtime.submitter.close()
                log.info("server.draining signal=%s", signals.name)
                await _drain(app.state.service, signals)
        finally:
            asked.cancel()
            server.should_exit = True
            await _over(serving, address)
    log.info("server.stopped")


def _warn_if_open(app: Starlette, listener: socket.socket) -> None:
    """Warn if whoever reaches this machine owns everything on it."""
    if app.state.service.authority is None and not is_loopback(listener):
        log.warning(
            "server.open_to_everyone address=%s why=nobody_is_asked_who_they_are "
            'remedy="set api_keys, or auth in langgraph.json; or listen on 127.0.0.1"',
            address_of(listener),
        )


def _allow_open_files(wanted: int) -> None:
    """Raise the soft limit of open files, which is small for the sake of old programs, as far as is wanted and allowed.

    Source: systemd, "File Descriptor HttpLimits": the hard limit is what programs that use poll may take.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("server.few_open_files allowed=%d wanted=%d setting=max_connections", allowed, wanted)


def _share_the_traces(service: Service) -> None:
    """Let graphs make spans of their own, if traces are on."""
    tracer = service.runtime.telemetry.tracer
    if tracer is not None:
        tracer.serve_process()


def _share_the_interpreter() -> None:
    """Let a thread that computes give way sooner: an answer takes some twenty turns of other threads."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _spare_the_collector() -> None:
    """Take what was loaded at start out of garbage collection, and collect young objects less often.

    The libraries of a graph are some hundred thousand objects that live as long as the process; going through them
    again and again costs a busy server several percent, and going through them once 0.1 s of the start. So the little
    garbage among them, some 2,000 objects, is kept.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)


def uvicorn_config(app: Starlette, front: ASGIApp, **given: Any) -> uvicorn.Config:
    """Return how uvicorn serves *front* of *app*: what a client may take of the server is in its settings."""
    settings: Settings = app.state.settings
    return uvicorn.Config(
        front,
        loop="uvloop",
        http=bounded_http(limits_of(settings, resource.getrlimit(resource.RLIMIT_NOFILE)[0])),
        ws=BoundedSocket,
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,  # as bodies are not unpacked: what is read at once would become a thousandfold
        access_log=False,  # AccessLogMiddleware has one
        server_header=False,
        proxy_headers=False,  # nothing asks who the client is
        timeout_keep_alive=KEEP_ALIVE_S,
        **given,
    )


async def _over(serving: asyncio.Task[None], address: tuple[str, int]) -> None:
    try:
        await serving
    except OSError as error:  # somebody else began to listen since the socket was bound
        raise not_available(*address, error) from error


async def _drain(service: Service, signals: StopSignals) -> None:
    hurry = asyncio.create_task(_hurry(service, signals))
    try:
        await service.drain()
    finally:
        hurry.cancel()
        await asyncio.gather(hurry, return_exceptions=True)


def _is_news(record: logging.LogRecord) -> bool:
    """Answers are cut off on purpose, and that is logged: the process closes, or a reader is not known any more."""
    return "without completing response" not in record.getMessage()


async def _hurry(service: Service, signals: StopSignals) -> None:
    await signals.second.wait()
    await service.drain(0.0)


def _is_waited_for(thread: threading.Thread) -> bool:
    """Return whether the interpreter waits for *thread* at its end; it does for a pool's, even if they are daemons."""
    in_pool = thread.name.startswith(SYNC_THREADS_NAME)
    return thread is not threading.main_thread() and (in_pool or not thread.daemon)


def exit_process(code: int) -> None:
    """End the process with *code*, even if an abandoned node still blocks a thread, which Python would wait for."""
    others = [thread for thread in threading.enumerate() if _is_waited_for(thread)]
    give_up_at = time.monotonic() + THREADS_GRACE_S
    for thread in others:
        thread.join(max(0.0, give_up_at - time.monotonic()))
    left = [thread.name for thread in others if thread.is_alive()]
    if left:
        log.warning("server.threads_abandoned threads=%s", ",".join(left))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
