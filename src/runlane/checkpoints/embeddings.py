"""From texts to vectors: the embedding function of an application, called where it may block."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.store.base import ensure_embeddings
from langgraph.store.base.embed import EmbeddingsLambda

from runlane.checkpoints.pgvector import Pgvector, open_pgvector
from runlane.checkpoints.sync import wait_from_another_thread
from runlane.checkpoints.texts import WHOLE, Texts, texts_in
from runlane.checkpoints.vectors import Vector, similarity, unit_vectors
from runlane.errors import EmbeddingFailed
from runlane.store.statements import Driver

log = logging.getLogger("runlane.store")

#: Runs a coroutine where agents run, for a caller on the control loop.
OnAgents = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The vectors of a batch's texts; each has length 1."""

    documents: Mapping[str, Vector]
    queries: Mapping[str, Vector]

    def stored(self, texts: Sequence[str]) -> bytes | None:
        """Return the vectors of an item's *texts* as they are stored; ``None`` if there are none."""
        return b"".join(self.documents[text].tobytes() for text in texts) or None


class SemanticIndex:
    """The semantic index: LangGraph's ``IndexConfig``."""

    def __init__(
        self,
        *,
        dims: int,
        embed: Any,
        fields: Sequence[str] | None = None,
        on_agents: OnAgents | None = None,
        control: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Args:
        embed: A function of a list of texts, async or not, or LangChain's ``Embeddings``.
        on_agents: Where to embed for callers on the loop *control*; on that loop itself by default.
        """
        self.dims = dims
        self._embeddings = ensure_embeddings(embed)
        self._only_async = isinstance(self._embeddings, EmbeddingsLambda) and not hasattr(self._embeddings, "func")
        self._fields = tuple(fields or (WHOLE,))
        self._on_agents = on_agents
        self._control = control or asyncio.get_running_loop()

    def texts(self, value: Mapping[str, Any], fields: Sequence[str] | None) -> list[str]:
        """Return the texts of *value* that are embedded: those in *fields*, or in the configured ones."""
        return texts_in(value, self._fields if fields is None else fields)

    async def embed(self, texts: Texts) -> Embedded:
        """Return the vectors of *texts*.

        Raises:
            EmbeddingFailed: The function failed, or what it returned does not fit.
        """
        if self._on_agents is not None and asyncio.get_running_loop() is self._control:
            elsewhere: Embedded = await self._on_agents(lambda: self._embed(texts))
            return elsewhere
        return await self._embed(texts)

    def embed_blocking(self, texts: Texts) -> Embedded:
        """Return the vectors of *texts*, blocking the calling thread, which is not the control loop's.

        Raises:
            EmbeddingFailed: As above.
            asyncio.InvalidStateError: The function is async, and the thread has a loop that this would block.
        """
        if self._only_async:
            _refuse_loop()
            return wait_from_another_thread(self.embed(texts), self._control)
        try:
            documents = self._embeddings.embed_documents(list(texts.documents)) if texts.documents else []
            queries = [self._embeddings.embed_query(query) for query in texts.queries]
        except Exception as error:  # the application's function may raise anything, and it is reported as theirs
            raise _failed(error) from error
        return self._fit(texts, documents, queries)

    async def open_pgvector(self, driver: Driver) -> tuple[bool, Pgvector | None]:
        """Return whether the database is PostgreSQL, and its table for the vectors of this index, if it has one."""
        return await open_pgvector(driver, self.dims)

    def similarity(self, stored: Sequence[bytes], query: Vector) -> list[float]:
        """Return how alike each item, given by its stored vectors, is to *query*."""
        return similarity(stored, query)

    async def _embed(self, texts: Texts) -> Embedded:
        try:
            documents = await self._embeddings.aembed_documents(list(texts.documents)) if texts.documents else []
            queries = [await self._embeddings.aembed_query(query) for query in texts.queries]
        except Exception as error:  # as above
            raise _failed(error) from error
        return self._fit(texts, documents, queries)

    def _fit(self, texts: Texts, documents: Any, queries: Any) -> Embedded:
        return Embedded(documents=self._named(texts.documents, documents), queries=self._named(texts.queries, queries))

    def _named(self, texts: Sequence[str], vectors: Any) -> dict[str, Vector]:
        if not texts:
            return {}
        try:
            rows = unit_vectors(vectors, dims=self.dims, count=len(texts))
        except (TypeError, ValueError) as error:
            raise EmbeddingFailed(f"it returned something else than it should: {error}") from error
        return dict(zip(texts, rows, strict=True))


def _failed(error: Exception) -> EmbeddingFailed:
    """Return what callers see, without the text of *error*, which may quote a provider's credentials."""
    log.warning("store.embedding_failed error=%s", type(error).__name__, exc_info=error)
    return EmbeddingFailed(f"it raised {type(error).__name__}; the log has its text")


def _refuse_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # the usual case: a thread without a loop
        return
    raise asyncio.InvalidStateError(
        "The store's embedding function is async, and a synchronous method was called in async code. "
        "Use the asynchronous method: 'await store.aput(...)', 'await store.asearch(...)'."
    )
