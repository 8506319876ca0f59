"""Short compressed bytes of what is stored in great numbers: messages, and what LangGraph says of each step. Pure.

Bytes that begin with ``0xC1``, as neither MessagePack nor UTF-8 text does, are compressed; others are as they are. The
dictionary has what most of these have in common. It belongs to the format: another one gets another mark.
"""

from __future__ import annotations

import zlib
from typing import Final

_MARK: Final = b"\xc1"
_DICTIONARY_1: Final = b"\xc1\x01"
#: Of fewer bytes little is saved, and of more much time is taken.
_MIN_BYTES: Final = 64
_MAX_BYTES: Final = 32 * 1024
#: A window of 2 KiB and little memory: what is compressed is short, and setting it up takes most of the time.
_WINDOW: Final = -11
_MEMORY: Final = 4

_COMMON: Final = b"".join(
    (
        b'"tool_calls":[{"name":"","args":{},"id":"call_","type":"tool_call"}],"invalid_tool_calls":[],"usage_metadata":'
        b'{"input_tokens":0,"output_tokens":0,"total_tokens":0,"input_token_details":{},"output_token_details":{}}',
        b',{"content":[{"type":"text","text":"","additional_kwargs":{},"response_metadata":{"finish_reason":"stop",'
        b'"model_name":"","model_provider":""},"type":"tool","name":null,"tool_call_id":"","artifact":null,"status":'
        b'"success","type":"human","name":null,"id":"","type":"ai","name":null,"id":"lc_run--","tool_calls":[],'
        b'"invalid_tool_calls":[],"usage_metadata":null}',
        b"\xadusage_metadata\x83\xacinput_tokens\xadoutput_tokens\xactotal_tokens\xaddefault\xa5model\xa5tools"
        b"\x84\xa4name\xa4args\xa2id\xa4type\xa9tool_call\xactool_call_id\xa8artifact\xc0\xa6status\xa7success",
        b"\xbclangchain_core.messages.tool\xabToolMessage\xbelangchain_core.messages.system\xadSystemMessage",
        b"\xbdlangchain_core.messages.human\xacHumanMessage\x86\xbalangchain_core.messages.ai\xa9AIMessage\x89\xa7content"
        b"\xda\x01\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa5human\xa4name\xc0\xa2id\xd9$"
        b"\xb3model_validate_json\xa4type\xa2ai\xa4name\xc0\xa2id\xd9$\xaatool_calls\x90\xb2invalid_tool_calls\x90"
        b"\xaeusage_metadata\xc0\xb3model_validate_json",
        b"\x86\xa1v\x04\xa2ts\xd9 2026-01-01T00:00:00.000000+00:00\xa2id\xd9$1f0\xb0channel_versions\x83\xa9__start__"
        b"\xb10000000001.-1-0\xa8messages\xb10000000000.-1-2\xabbranch:to:\xadversions_seen\x83\xa9__input__\x80"
        b"\xa9__start__\x81\xa9__start__\xb10000000000.-1-1\x81\xabbranch:to:\xb10000000000.\xb0updated_channels"
        b"\x92\xabbranch:to:\xa8messages",
        b"\x8c\xa6source\xa5input\xa4fork\xa6update\xa6source\xa4loop\xa4step\xcd\x01\xa7parents\x80\xaacreated_by"
        b"\xa6system\xa6run_id\xd9$\xa8graph_id\xa5agent\xacassistant_id\xd9$\xabrun_attempt\x01\xb1langgraph_version"
        b"\xa51.2.\xa7user_id\xa0\xb6langgraph_auth_user_id\xa0\xb4langgraph_request_id\xd9$",
    )
)
#: Copied for each use: the dictionary is read once.
_COMPRESSOR: Final = zlib.compressobj(1, zlib.DEFLATED, _WINDOW, _MEMORY, zdict=_COMMON)


def packed(data: bytes) -> bytes:
    """Return *data* as it is stored: compressed if that is shorter."""
    is_marked = data[:1] == _MARK
    if is_marked or _MIN_BYTES <= len(data) <= _MAX_BYTES:
        compressor = _COMPRESSOR.copy()
        short = b"".join((_DICTIONARY_1, compressor.compress(data), compressor.flush()))
        if is_marked or len(short) < len(data):
            return short
    return data


def unpacked(data: bytes) -> bytes:
    """Return the bytes that :func:`packed` was given.

    Raises:
        ValueError: It has not made *data*.
    """
    if data[:1] != _MARK:
        return data
    if data[:2] != _DICTIONARY_1:
        raise ValueError("compressed by a newer version of Runlane, or damaged")
    decompressor = zlib.decompressobj(_WINDOW, zdict=_COMMON)
    try:
        whole = decompressor.decompress(data[2:])
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if not decompressor.eof:
        raise ValueError("damaged: its end is missing")
    return whole
