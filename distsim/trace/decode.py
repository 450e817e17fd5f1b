"""The Chakra wire format as kernels: raw protobuf bytes in, columns out.

One walk over the bytes of all files of a batch fills the columns of :class:`~distsim.trace.graph.Program`; no object per
node is made. Strings are interned by their bytes, so that only distinct ones ever become Python strings. Interpreted on
``bytes`` and lists for small traces, compiled on arrays for large ones (see :mod:`distsim.kernel.jit`).

Leniences, as writers in the field need them: any numeric kind for any number (``is_cpu_op`` as int32, ``comm_size`` as
double), numbers as decimal strings, group names as integers, attributes that carry no value (taken as absent), packed and
unpacked lists, unknown fields (skipped and counted).
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel
from distsim.trace.wire import dependencies, dimensions, floating, little, metadata_end, skip, varint

#: Attributes that the decoder reads, by length of name; their position in this tuple is their number in the kernels.
ATTRIBUTES = (
    "stream", "num_ops", "pg_name", "comm_src", "comm_dst", "comm_tag", "start_ps", "is_cpu_op", "comm_type", "comm_size",
    "comm_root", "tensor_size", "duration_ps", "involved_dim", "comm_priority",
)  # fmt: skip
STREAM, NUM_OPS, PG_NAME, COMM_SRC, COMM_DST, COMM_TAG, START_PS, IS_CPU_OP = 0, 1, 2, 3, 4, 5, 6, 7
COMM_TYPE, COMM_SIZE, COMM_ROOT, TENSOR_SIZE, DURATION_PS, INVOLVED_DIM, COMM_PRIORITY = 8, 9, 10, 11, 12, 13, 14

#: The kind (field number of AttributeProto's oneof) that distsim writes each attribute with; others are read as well.
CANONICAL_FIELD = (9, 9, 29, 7, 7, 7, 9, 27, 9, 9, 7, 13, 9, 28, 7)

#: attributes as one byte string, where each begins, and for every length the first attribute that is at least so long
KEYS = "".join(ATTRIBUTES).encode()
KEY_AT = [sum(len(name) for name in ATTRIBUTES[:k]) for k in range(len(ATTRIBUTES) + 1)]
BY_LENGTH = [sum(1 for name in ATTRIBUTES if len(name) < length) for length in range(16)]

# status[0] after a walk: what stopped it (0 = nothing); status[1]: at which byte; status[2]: in which file
CUT, MALFORMED, NOT_METADATA, TOO_LONG = 1, 2, 3, 4
# status[3]: dependencies written, status[4]: distinct strings, status[5]: things in the file that no column holds

_MAX = 9223372036854775807
_MAX_MICROS = 9_000_000_000_000


@kernel
def attribute(data: Any, at: int, end: int, keys: Any, key_at: Any, by_length: Any) -> Any:
    """(which, field, value, start, length) of one AttributeProto.

    ``which`` indexes ATTRIBUTES, -1 for one that is not among them, -2 for a malformed one; ``field`` is 0 where there is
    no value; ``value`` holds a number, ``start`` and ``length`` the bytes of a string or list.
    """
    which = -1
    field = 0
    value = 0
    start = 0
    length = 0
    extra = False
    while at < end:
        tag, at = varint(data, at, end)
        if at < 0:
            return -2, 0, 0, 0, 0
        number = tag >> 3
        wire = tag & 7
        if wire == 2:
            size, at = varint(data, at, end)
            if at < 0 or size < 0 or size > end - at:
                return -2, 0, 0, 0, 0
            if number == 1:
                which = -1
                if size < 14:
                    for k in range(by_length[size], by_length[size + 1]):
                        base = key_at[k]
                        same = True
                        for c in range(size):
                            if data[at + c] != keys[base + c]:
                                same = False
                                break
                        if same:
                            which = k
                            break
            elif number == 2:
                extra = True
            else:
                field = number
                start = at
                length = size
            at += size
        elif wire == 0:
            value, at = varint(data, at, end)
            if at < 0:
                return -2, 0, 0, 0, 0
            field = number
            if number == 15 or number == 17:
                value = ((value >> 1) & _MAX) ^ -(value & 1)
        elif wire == 1 or wire == 5:
            size = 8 if wire == 1 else 4
            if at + size > end:
                return -2, 0, 0, 0, 0
            field = number
            if number == 3 or number == 5:
                value = floating(data, at, size)
            else:
                value = little(data, at, size)
                if number == 19 and value < 0:
                    value += 4294967296
            at += size
        else:
            return -2, 0, 0, 0, 0
    if which >= 0 and (field == 29 or field == 31) and which != PG_NAME and which != STREAM:
        # a number written as decimal text
        value = 0
        negative = length > 0 and data[start] == 45
        k = start + 1 if negative else start
        digits = k < start + length and length < 20
        while digits and k < start + length:
            byte = data[k] + 0
            digits = 48 <= byte <= 57 and value < 100000000000000000
            value = value * 10 + byte - 48 if digits else 0
            k += 1
        if not digits:
            field = 0
        elif negative:
            value = -value
    return which, -field if extra else field, value, start, length


@kernel
def intern(data: Any, at: int, length: int, table: Any, mask: int, string_at: Any, string_length: Any, count: int) -> Any:
    """Number of this byte string among the distinct ones; ``count`` itself where it is new (and is then entered)."""
    code = 17
    for k in range(length):
        code = (code * 31 + data[at + k]) & 1073741823
    slot = (code ^ (code >> 13)) & mask
    while True:
        entry = table[slot]
        if entry < 0:
            table[slot] = count
            string_at[count] = at
            string_length[count] = length
            return count
        if string_length[entry] == length:
            base = string_at[entry]
            same = True
            for k in range(length):
                if data[base + k] != data[at + k]:
                    same = False
                    break
            if same:
                return entry
        slot = (slot + 1) & mask


@kernel
def decode(
    data: Any, files: int, begins: Any, ends: Any, keys: Any, key_at: Any, by_length: Any,
    table: Any, mask: int, string_at: Any, string_length: Any,
    ids: Any, types: Any, dep_ptr: Any, dep: Any, names: Any, durations: Any, starts: Any, num_ops: Any, tensor_sizes: Any,
    cpu: Any, collectives: Any, sizes: Any, groups: Any, sources: Any, destinations: Any, tags: Any, priorities: Any,
    roots: Any, dims: Any, streams: Any, status: Any,
) -> None:  # fmt: skip
    """Fill one row per node, files one after the other; ``dep`` holds ids here. Stops at the first malformed byte.

    ``groups`` and ``streams`` hold the number of an interned string, or -2 - v for an integer v, or -1.
    """
    row = 0
    deps = 0
    strings = 0
    status[0] = 0
    status[5] = 0
    dep_ptr[0] = 0
    for file in range(files):
        end = ends[file]
        status[2] = file
        at = metadata_end(data, begins[file], end)
        if at < 0:
            status[0] = NOT_METADATA
            status[1] = begins[file]
            return
        while at < end:
            status[1] = at
            length, at = varint(data, at, end)
            if at < 0 or length < 0 or length > end - at:
                status[0] = CUT
                return
            begin = at
            stop = at + length
            ids[row] = 0
            types[row] = 0
            names[row] = -1
            durations[row] = -1
            starts[row] = -1
            num_ops[row] = -1
            tensor_sizes[row] = -1
            cpu[row] = False
            collectives[row] = -1
            sizes[row] = -1
            groups[row] = -1
            sources[row] = -1
            destinations[row] = -1
            tags[row] = -1
            priorities[row] = -1
            roots[row] = 0
            dims[row] = -1
            streams[row] = -1
            control = False
            exact_duration = -1
            exact_start = -1
            while at < stop:
                tag, at = varint(data, at, stop)
                if at < 0:
                    status[0] = MALFORMED
                    return
                if tag == 82:  # attr
                    size, at = varint(data, at, stop)
                    if at < 0 or size < 0 or size > stop - at:
                        status[0] = MALFORMED
                        return
                    which, field, value, start, length = attribute(data, at, at + size, keys, key_at, by_length)
                    at += size
                    if which == -2:
                        status[0] = MALFORMED
                        return
                    if which < 0 or field <= 0:
                        status[5] += 1
                        field = -field
                    elif field != CANONICAL_FIELD[which]:
                        status[5] += 1
                    text = field == 29 or field == 31
                    if which < 0 or field == 0:
                        pass
                    elif which in (PG_NAME, STREAM):
                        if text:
                            code = intern(data, start, length, table, mask, string_at, string_length, strings)
                            if code == strings:
                                strings += 1
                        elif 0 <= value < 1000000000:
                            code = -2 - value
                        else:
                            code = -1
                        if which == PG_NAME:
                            groups[row] = code
                        else:
                            streams[row] = code
                    elif which == INVOLVED_DIM:
                        status[5] += 1  # the mask does not say how long the list was
                        if field == 28 or field == 8 or field == 10 or field == 12 or field == 14:
                            dims[row] = dimensions(data, start, start + length)
                    elif (field & 1) == 0:
                        pass  # a list where one number belongs
                    elif which == NUM_OPS:
                        num_ops[row] = value
                    elif which == TENSOR_SIZE:
                        tensor_sizes[row] = value
                    elif which == COMM_SIZE:
                        sizes[row] = value
                    elif which == COMM_TYPE:
                        collectives[row] = value if -1 <= value < 127 else 127
                    elif which == IS_CPU_OP:
                        cpu[row] = value != 0
                    elif which == COMM_TAG:
                        tags[row] = value
                    elif which == DURATION_PS:
                        exact_duration = value
                    elif which == START_PS:
                        exact_start = value
                    elif -2147483648 <= value < 2147483648:
                        if which == COMM_SRC:
                            sources[row] = value
                        elif which == COMM_DST:
                            destinations[row] = value
                        elif which == COMM_PRIORITY:
                            priorities[row] = value
                        elif which == COMM_ROOT:
                            roots[row] = value
                    else:
                        status[0] = MALFORMED
                        return
                elif tag == 8:
                    ids[row], at = varint(data, at, stop)
                elif tag == 18:  # name
                    size, at = varint(data, at, stop)
                    if at < 0 or size < 0 or size > stop - at:
                        status[0] = MALFORMED
                        return
                    code = intern(data, at, size, table, mask, string_at, string_length, strings)
                    if code == strings:
                        strings += 1
                    names[row] = code
                    at += size
                elif tag == 24:
                    value, at = varint(data, at, stop)
                    types[row] = value if 0 <= value < 127 else 127
                elif tag == 48 or tag == 56:
                    value, at = varint(data, at, stop)
                    if value > _MAX_MICROS or value < -_MAX_MICROS:
                        status[0] = TOO_LONG
                        return
                    if tag == 56:
                        durations[row] = value * 1000000
                    else:
                        starts[row] = value * 1000000
                else:
                    number = tag >> 3
                    control = control or number == 4
                    if number != 5:
                        status[5] += 1
                    at = skip(data, at, stop, tag & 7)
                if at < 0:
                    status[0] = MALFORMED
                    return
            if exact_duration >= 0:
                durations[row] = exact_duration
            if exact_start >= 0:
                starts[row] = exact_start
            deps, bad = dependencies(data, begin, stop, 5, dep, deps)
            if control and bad == 0:
                deps, bad = dependencies(data, begin, stop, 4, dep, deps)
            if bad < 0:
                status[0] = MALFORMED
                return
            row += 1
            dep_ptr[row] = deps
    status[3] = deps
    status[4] = strings
