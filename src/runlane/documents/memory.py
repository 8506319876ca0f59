"""The parts of a thread that an attempt knows: of the objects in its state, and of what is stored. No I/O.

A memory belongs to one attempt at a time. What it says of the database holds as long as nothing is removed there: parts
are only removed while nothing of the thread executes, and the thread's epoch tells of it.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial
from typing import Any, Final

from runlane.documents.parts import Folding, children, is_item, is_node

#: Texts that are shorter are encoded again.
_MIN_TEXT_CHARS: Final = 256
_PLAIN: Final = (str, int, float, bool, type(None))
#: Memories of threads at rest, in all.
MEMORY_BYTES: Final = 32 * 1024 * 1024
#: An object takes about so much more than its encoded forms, and so much a reference.
_ITEM_BYTES: Final = 1024
_REF_BYTES: Final = 128
#: References of earlier versions are kept until there are so many, as finding them takes a while.
_SPARE_REFS: Final = 1024

_is_message: dict[type, bool] = {}


class _Frozen:
    """A container's contents, equal to containers of the same values of the same types in the same order."""

    __slots__ = ("_data",)

    def __init__(self, value: Any) -> None:
        self._data = marshal.dumps(value, 2)  # raises ValueError for what is not made of plain values

    def __hash__(self) -> int:
        return hash(self._data)

    def __eq__(self, other: Any) -> bool:
        try:
            return marshal.dumps(other, 2) == self._data
        except ValueError:
            return False


class _Item:
    """An object, its fields as they were when it was encoded, where it stood, and what it was encoded to."""

    __slots__ = ("data", "fields", "key", "ref", "size", "thing", "used")

    def __init__(self, thing: Any, key: Any, ref: str, data: bytes, size: int) -> None:
        self.thing = thing
        self.fields = None if type(thing) is str else _fields(thing)
        self.key = key
        self.ref = ref
        self.data = data
        self.size = _ITEM_BYTES + size + len(data)
        self.used = 0

    @property
    def unchanged(self) -> bool:
        return self.fields is None or self.fields == self.thing.__dict__


class _Known:
    """What is known of one codec: objects by identity, items by reference, and what is stored or on its way.

    ``tops`` are the references that the documents of this generation begin at.
    """

    __slots__ = ("by_ref", "foldings", "items", "stored", "tops")

    def __init__(self) -> None:
        self.items: dict[int, _Item] = {}
        self.by_ref: dict[str, _Item] = {}
        self.stored: set[str] = set()
        self.tops: set[str] = set()
        self.foldings: dict[str, Folding] = {}

    def drop_unused(self, generation: int) -> int:
        """Drop the objects that were not used since *generation*, and return what the others take."""
        self.items = {key: item for key, item in self.items.items() if item.used >= generation}
        self.by_ref = {item.ref: item for item in self.items.values() if is_item(item.ref)}
        return sum(item.size for item in self.items.values())


#: What is known of a codec before there is something to know; never written.
_NOTHING: Final = _Known()


class ThreadMemory:
    """What is known of one thread; used by one attempt, on one thread at a time."""

    __slots__ = ("_codecs", "_generation", "_kept_refs", "_trimmed_at", "bytes", "epoch", "nodes")

    def __init__(self) -> None:
        self._codecs: dict[str, _Known] = {}
        self._generation = 0
        self._kept_refs = 0
        self._trimmed_at = MEMORY_BYTES
        self.nodes: dict[str, bytes] = {}
        self.bytes = 0
        #: Which state of the thread's parts this knows.
        self.epoch: str | None = None

    def _known(self, codec: str) -> _Known:
        return self._codecs.get(codec, _NOTHING)

    def _learning(self, codec: str) -> _Known:
        known = self._codecs.get(codec)
        if known is None:
            known = self._codecs[codec] = _Known()
        return known

    # Storage

    def stored(self, codec: str) -> Set[str]:
        """Return the references that documents of *codec* need not bring, as they are stored or on their way."""
        return self._known(codec).stored

    def foldings(self, codec: str) -> dict[str, Folding]:
        """Return how lists of *codec* were folded, by their first references."""
        return self._learning(codec).foldings

    def accept(self, codec: str, tops: Iterable[str], parts: Iterable[str]) -> None:
        """Take *parts* for stored: they were read, or are on their way with the documents that refer to *tops*.

        What is on its way reaches the database before whatever is sent after it, or the attempt's memory is dropped.
        """
        known = self._learning(codec)
        known.tops.update(tops)
        known.stored.update(parts)

    def staged(self) -> ThreadMemory:
        """Return this for writes that may be dropped again: what they bring does not count as stored here."""
        copy = ThreadMemory()
        copy._generation, copy.nodes, copy.epoch = self._generation, self.nodes, self.epoch
        for codec, known in self._codecs.items():
            other = copy._codecs[codec] = _Known()
            other.items, other.by_ref, other.stored = known.items, known.by_ref, set(known.stored)
            other.tops = set(known.tops)
            other.foldings = {first: folding.copy() for first, folding in known.foldings.items()}
        return copy

    def keep_nodes(self, parts: Mapping[str, bytes]) -> None:
        """Keep those of *parts* that are nodes."""
        self.nodes.update({ref: data for ref, data in parts.items() if is_node(ref)})

    # Objects

    def remembers(self, thing: Any) -> bool:
        """Return whether *thing* is of a kind that is remembered, and is not changed without this noticing it."""
        cls = type(thing)
        if cls is str:
            return len(thing) >= _MIN_TEXT_CHARS
        known = _is_message.get(cls)
        if known is None:
            bases = {(base.__module__, base.__name__) for base in cls.__mro__}
            known = _is_message[cls] = ("langchain_core.messages.base", "BaseMessage") in bases
        return known and not thing.__pydantic_extra__

    def knows(self, thing: Any, codec: str) -> bool:
        """Return whether *thing* has been encoded before, in whatever form it was then."""
        item = self._known(codec).items.get(id(thing))
        return item is not None and item.thing is thing

    def encoded(self, things: Iterable[Any], keys: Iterable[Any], codec: str) -> tuple[list[str], list[bytes]]:
        """Return the references and the bytes of *things* at their *keys*; an empty reference if one is not stored, or
        has changed since."""
        known, generation = self._known(codec), self._generation
        items, stored = known.items, known.stored
        refs: list[str] = []
        data: list[bytes] = []
        for thing, key in zip(things, keys, strict=True):
            item = items.get(id(thing))
            if (
                item is None
                or item.thing is not thing
                or item.key != key
                or item.ref not in stored
                or (item.fields is not None and item.fields != thing.__dict__)
            ):
                refs.append("")
                data.append(b"")
                continue
            item.used = generation
            refs.append(item.ref)
            data.append(item.data)
        return refs, data

    def remember(self, thing: Any, key: Any, codec: str, ref: str, size: int, data: bytes = b"") -> None:
        """Remember how *thing* is encoded at *key*, in *size* bytes; *data* is empty if only the reference is used."""
        try:
            item = _Item(thing, key, ref, data, size)
        except ValueError:
            return
        known = self._learning(codec)
        known.items[id(thing)] = item
        if is_item(ref):  # the others have a key or a separator too
            known.by_ref[ref] = item
        item.used = self._generation
        self.bytes += item.size
        if self.bytes > self._trimmed_at:
            self._trim()

    def learn(self, thing: Any, codec: str, ref: str, size: int) -> None:
        """Remember an item of a list that was read."""
        if self.remembers(thing):
            self.remember(thing, None, codec, ref, size)

    def _trim(self) -> None:
        """Drop the objects that were not used since the last time: a state has them no more."""
        self.bytes = sum(known.drop_unused(self._generation) for known in self._codecs.values())
        self._generation += 1
        self._trimmed_at = max(MEMORY_BYTES, 2 * self.bytes)

    def recall(self, codec: str) -> Recall:
        """Return what need not be read of *codec*."""
        return Recall(partial(self._known, codec), self.nodes, self._generation)

    # From attempt to attempt

    def rested(self) -> ThreadMemory:
        """Return what the attempt that is over has used, apart from this: its code may not know that it is over."""
        rested = self.staged()
        rested.nodes = dict(self.nodes)
        rested.bytes = sum(known.drop_unused(self._generation) for known in rested._codecs.values())
        rested._kept_refs = self._kept_refs
        if rested._refs() > 2 * rested._kept_refs + _SPARE_REFS:
            rested._drop_refs()
        rested.bytes += _REF_BYTES * rested._refs() + sum(map(len, rested.nodes.values()))
        rested._generation += 1
        return rested

    def begin(self, epoch: str | None) -> None:
        """Begin an attempt on a thread whose parts are in this state."""
        for known in self._codecs.values():
            known.tops.clear()
            if epoch is None or epoch != self.epoch:
                known.stored.clear()
        self.epoch = epoch

    def _refs(self) -> int:
        return len(self.nodes) + sum(len(known.stored) for known in self._codecs.values())

    def _drop_refs(self) -> None:
        """Drop the references of versions that this generation has not read or written."""
        every: set[str] = set()
        for known in self._codecs.values():
            live, unseen = set(known.tops), list(known.tops)
            while unseen:
                below = set(children(self.nodes.get(unseen.pop(), b""))) - live
                live |= below
                unseen += [ref for ref in below if is_node(ref)]
            known.stored &= live
            every |= live
        self.nodes = {ref: data for ref, data in self.nodes.items() if ref in every}
        self._kept_refs = self._refs()


class Recall:
    """Objects and nodes of a memory that a reader need not read. An object that has changed is none of them."""

    __slots__ = ("_generation", "_known", "nodes", "objects")

    def __init__(self, known: Callable[[], _Known], nodes: Mapping[str, bytes], generation: int) -> None:
        self._known = known
        self._generation = generation
        self.nodes = nodes
        #: The objects that were asked for, by reference.
        self.objects: dict[str, Any] = {}

    def __contains__(self, ref: str) -> bool:
        return self.find(ref) is not None

    def find(self, ref: str) -> Any:
        """Return the object that *ref* stands for, which what is read of it from now on is too; ``None``: none is."""
        item = self._known().by_ref.get(ref)
        if item is None or not item.unchanged:
            return None
        item.used = self._generation
        self.objects[ref] = item.thing
        return item.thing


class ThreadMemories:
    """The memories of threads at rest, those that rested last, as far as they fit."""

    def __init__(self, max_bytes: int = MEMORY_BYTES) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0
        self._resting: OrderedDict[str, ThreadMemory] = OrderedDict()

    def take(self, thread_id: str, epoch: str | None) -> ThreadMemory:
        """Return the memory of a thread, for an attempt that is its only user until :meth:`give_back`."""
        memory = self._resting.pop(thread_id, None)
        if memory is None:
            memory = ThreadMemory()
        else:
            self.bytes -= memory.bytes
        memory.begin(epoch)
        return memory

    def give_back(self, thread_id: str, memory: ThreadMemory) -> None:
        """Keep a memory whose attempt is over; all that it takes for stored has been stored."""
        rested = memory.rested()
        if not 0 < rested.bytes <= self._max_bytes:
            return
        earlier = self._resting.pop(thread_id, None)
        self.bytes += rested.bytes - (0 if earlier is None else earlier.bytes)
        self._resting[thread_id] = rested
        while self.bytes > self._max_bytes:
            self.bytes -= self._resting.popitem(last=False)[1].bytes


def _fields(thing: Any) -> dict[str, Any]:
    """Return the fields of a message as they are now, comparable with what they will be.

    Raises:
        ValueError: A field is not made of plain values.
    """
    return {name: _as_now(value) for name, value in thing.__dict__.items()}


def _as_now(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if not value and type(value) in (dict, list):
        return type(value)()  # which is compared faster
    return _Frozen(value)
