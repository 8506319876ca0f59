"""Parts of documents, addressed by their content, and the tree that makes a long list of them short. Pure.

A reference is the kind of a part and the hash of its bytes. The bytes of a node are the references of its children.
Where a list of references is cut into nodes depends on the references alone, so that two lists that differ in a few
places share all nodes but those of these places: appending to a list, or changing one item of it, makes O(log n) new
parts.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from itertools import count
from typing import Final

#: Kinds of parts: any bytes, the bytes of one whole item of a list, a node, and a node that is one whole item.
BYTES: Final = "."
ITEM: Final = "="
NODE: Final = "+"
ITEM_NODE: Final = "#"
_NODES: Final = (NODE, ITEM_NODE)

#: Bytes of a hash; 15 are 20 characters of base64, without padding.
_HASH_BYTES: Final = 15
REF_CHARS: Final = 21
#: A node has children up to one whose reference ends so, which one of 4 does: of more, each version has fewer nodes and
#: more references.
_LAST: Final = "AEIMQUYcgkosw048"
_MIN_CHILDREN: Final = 2
_MAX_CHILDREN: Final = 32
#: A group of children, of each its last character.
_GROUP: Final = re.compile(
    f".{{{_MIN_CHILDREN - 1}}}(?:[^{_LAST}]{{0,{_MAX_CHILDREN - _MIN_CHILDREN}}}[{_LAST}]"
    f"|[^{_LAST}]{{{_MAX_CHILDREN - _MIN_CHILDREN + 1}}})"
)


def ref_of(kind: str, data: bytes) -> str:
    """Return the reference of a part."""
    return kind + b2a_base64(blake2b(data, digest_size=_HASH_BYTES).digest(), newline=False).decode("ascii")


def is_node(ref: str) -> bool:
    """Return whether the bytes of a part are references."""
    return ref[0] in _NODES


def is_item(ref: str) -> bool:
    """Return whether a part is one whole item of a list."""
    return ref[0] == ITEM or ref[0] == ITEM_NODE


def split_refs(text: str) -> list[str]:
    """Return the references in *text*, one after the other."""
    return [text[at : at + REF_CHARS] for at in range(0, len(text), REF_CHARS)]


def children(data: bytes) -> list[str]:
    """Return the references of a node's children."""
    return split_refs(data.decode("ascii"))


def node(kind: str, refs: Iterable[str]) -> tuple[str, bytes]:
    """Return the reference and the bytes of a node."""
    data = "".join(refs).encode("ascii")
    return ref_of(kind, data), data


class Folding:
    """Folds versions of one list: what an earlier one has begun with is neither cut nor hashed again."""

    __slots__ = ("_levels",)

    def __init__(self, levels: Iterable[tuple[str, list[str]]] = ()) -> None:
        #: Of each level the references up to its last cut, one after the other, and the nodes over them.
        self._levels = list(levels)

    def copy(self) -> Folding:
        """Return another one that has seen the same versions."""
        return Folding(self._levels)

    def fold(self, refs: Sequence[str], stored: AbstractSet[str] = frozenset()) -> tuple[list[str], dict[str, bytes]]:
        """Return a few references that stand for all of *refs* in their order, and the nodes for that.

        At each level the references behind the last cut stay as they are: the next version of a list most often adds
        there.

        Args:
            stored: Nodes that need not be given.
        """
        level, nodes = list(refs), dict[str, bytes]()
        open_ends: list[Sequence[str]] = []
        for depth in count():
            text = "".join(level)
            begun, above = self._begun(depth, text, stored)
            at = len(begun) // REF_CHARS
            for group in _groups(level[at:], text[len(begun) :]):
                ref, data = node(NODE, group)
                nodes[ref] = data
                above.append(ref)
                at += len(group)
            if not above:
                break
            self._levels[depth : depth + 1] = [(text[: at * REF_CHARS], above)]
            open_ends.append(level[at:])
            level = above
        for open_end in reversed(open_ends):
            level = [*level, *open_end]
        return level, nodes

    def _begun(self, depth: int, text: str, stored: AbstractSet[str]) -> tuple[str, list[str]]:
        """Return with which references *text* begins as an earlier version did, and the nodes over them."""
        if depth < len(self._levels):
            begun, above = self._levels[depth]
            if text.startswith(begun) and stored >= set(above):
                return begun, list(above)
        return "", []


def fold(refs: Sequence[str]) -> tuple[list[str], dict[str, bytes]]:
    """Fold one version of a list."""
    return Folding().fold(refs)


def _groups(refs: Sequence[str], text: str) -> list[Sequence[str]]:
    """Return the groups of *refs*, which are *text*, that are complete."""
    return [refs[match.start() : match.end()] for match in _GROUP.finditer(text[REF_CHARS - 1 :: REF_CHARS])]


def expand(refs: Iterable[str], parts: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the references that *refs* stand for, with a node that is an item as one of them.

    Raises:
        KeyError: A part is not among *parts*.
    """
    for ref in refs:
        if ref[0] == NODE:
            yield from expand(children(parts[ref]), parts)
        else:
            yield ref


def bytes_of(ref: str, parts: Mapping[str, bytes]) -> bytes:
    """Return the bytes that a reference stands for.

    Raises:
        KeyError: A part is not among *parts*.
    """
    if not is_node(ref):
        return parts[ref]
    return b"".join([bytes_of(child, parts) for child in children(parts[ref])])
