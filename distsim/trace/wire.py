"""The protobuf wire format of Chakra as kernels: numbers, fields, messages, lists in raw bytes. No node is known here.

Positions are byte offsets; a position of -1 says that the bytes there are cut or malformed.
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel

_MAX = 9223372036854775807


@kernel
def varint(data: Any, at: int, end: int) -> Any:
    """(value, next position) of the varint at ``at``: a signed 64-bit number; position -1 where it is cut or too long."""
    if at >= end:
        return 0, -1
    byte = data[at] + 0
    at += 1
    if byte < 128:
        return byte, at
    value = byte & 127
    shift = 7
    while at < end and shift < 63:
        byte = data[at] + 0
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    if at < end and shift == 63 and data[at] < 2:
        # NOTE: the tenth byte is the sign; Python and machine integers agree only if it is never shifted in
        if data[at] == 1:
            value = value - _MAX - 1
        return value, at + 1
    return 0, -1


@kernel
def skip(data: Any, at: int, end: int, wire: int) -> Any:
    """Position after a field of this wire type, -1 where it is cut or the wire type is none."""
    if wire == 0:
        _, at = varint(data, at, end)
        return at
    if wire == 2:
        length, at = varint(data, at, end)
        if at < 0 or length < 0 or length > end - at:
            return -1
        return at + length
    if wire == 1:
        at += 8
    elif wire == 5:
        at += 4
    else:
        return -1
    return at if at <= end else -1


@kernel
def count_nodes(data: Any, at: int, end: int) -> Any:
    """Messages after the first in a file (its nodes); -1 - p where the message at byte p runs over the end."""
    count = -1
    while at < end:
        begin = at
        length, at = varint(data, at, end)
        if at < 0 or length < 0 or length > end - at:
            return -1 - begin
        at += length
        count += 1
    return count if count > 0 else 0


@kernel
def messages(data: Any, at: int, end: int, begins: Any, ends: Any) -> int:
    """Fill in where the bodies of the messages of a file begin and end; how many, up to the first that is cut."""
    count = 0
    while at < end:
        length, at = varint(data, at, end)
        if at < 0 or length < 0 or length > end - at:
            break
        begins[count] = at
        at += length
        ends[count] = at
        count += 1
    return count


@kernel
def little(data: Any, at: int, size: int) -> Any:
    """Signed integer of ``size`` (4 or 8) little-endian bytes."""
    value = 0
    for k in range(size - 1):
        value |= (data[at + k] + 0) << (8 * k)
    top = data[at + size - 1] + 0
    if top >= 128:
        top -= 256
    return value + top * (1 << (8 * (size - 1)))


@kernel
def floating(data: Any, at: int, size: int) -> Any:
    """Whole part of an IEEE float (4 bytes) or double (8); 0 for infinities, NaN and values beyond 2^62."""
    if size == 4:
        bits = little(data, at, 4)
        exponent = ((bits >> 23) & 255) - 150
        mantissa = (bits & 8388607) | 8388608
        special = exponent == 105
    else:
        bits = little(data, at, 8)
        exponent = ((bits >> 52) & 2047) - 1075
        mantissa = (bits & 4503599627370495) | 4503599627370496
        special = exponent == 972
    if special or exponent < -60 or exponent > (9 if size == 8 else 38):
        return 0
    value = mantissa << exponent if exponent >= 0 else mantissa >> -exponent
    return -value if bits < 0 else value


@kernel
def dimensions(data: Any, at: int, end: int) -> int:
    """Bit mask of an ``involved_dim`` list (BoolList or an integer list, packed or not); -1 where it is malformed."""
    mask = 0
    position = 0
    while at < end:
        tag, at = varint(data, at, end)
        if at < 0:
            return -1
        stop = end
        packed = (tag & 7) == 2
        if packed:
            size, at = varint(data, at, end)
            if at < 0 or size < 0 or size > end - at:
                return -1
            stop = at + size
        elif (tag & 7) != 0:
            return -1
        while at < stop:
            value, at = varint(data, at, stop)
            if at < 0:
                return -1
            if value != 0 and position < 31:
                mask |= 1 << position
            position += 1
            if not packed:
                break
    return mask


@kernel
def dependencies(data: Any, at: int, end: int, number: int, dep: Any, count: int) -> Any:
    """Append the ids of field ``number`` of the node at ``at:end`` to ``dep``; (new count, 0 or -1 where malformed)."""
    while at < end:
        tag, at = varint(data, at, end)
        if at < 0:
            return count, -1
        if tag == number * 8 + 2:
            size, at = varint(data, at, end)
            if at < 0 or size < 0 or size > end - at:
                return count, -1
            stop = at + size
            while at < stop:
                value, at = varint(data, at, stop)
                if at < 0:
                    return count, -1
                dep[count] = value
                count += 1
        elif tag == number * 8:
            value, at = varint(data, at, end)
            if at < 0:
                return count, -1
            dep[count] = value
            count += 1
        else:
            at = skip(data, at, end, tag & 7)
            if at < 0:
                return count, -1
    return count, 0


@kernel
def metadata_end(data: Any, at: int, end: int) -> Any:
    """Position after the first message if it is a GlobalMetadata (fields 1 and 2, both with a length), else -1."""
    length, at = varint(data, at, end)
    if at < 0 or length < 0 or length > end - at:
        return -1
    stop = at + length
    while at < stop:
        tag, at = varint(data, at, stop)
        if at < 0 or (tag != 10 and tag != 18):
            return -1
        at = skip(data, at, stop, 2)
        if at < 0:
            return -1
    return stop
