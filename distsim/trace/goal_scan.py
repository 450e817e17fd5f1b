"""The scanner of GOAL text: bytes to statements in columns, labels to operations; interpreted or compiled, as all kernels.

One statement ends at its line's end, at ``;`` or before ``}``. ``//`` and ``/* */`` are comments.
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel

SEND, RECV, CALC = 1, 2, 3

# What a token is.
END, STOP, OPEN, CLOSE, COLON, NUMBER, WORD, MINUS_ONE, OTHER, UNCLOSED, TOO_LARGE = range(11)

#: numbers in the text stay below (a size or a time in ns; times in ps then stay below 2^62)
LARGEST = 1 << 52


def _code(word: str) -> int:
    """A word of up to nine letters as a number: its bytes, seven bits each."""
    code = 0
    for letter in word.encode():
        code = code * 128 + letter
    return code


W_NUM_RANKS, W_RANK, W_SEND, W_RECV, W_CALC = (_code(word) for word in ("num_ranks", "rank", "send", "recv", "calc"))
W_REQUIRES, W_IREQUIRES, W_B, W_TO, W_FROM = (_code(word) for word in ("requires", "irequires", "b", "to", "from"))
W_TAG, W_CPU, W_NIC = (_code(word) for word in ("tag", "cpu", "nic"))

# Where a scan stopped: index into EXPECTED; 0: it did not.
EXPECTED = (
    "", "num_ranks N, or rank N {", "a number", "{", "a label, send, recv, calc or }", ":, requires or irequires",
    "send, recv or calc", "b after the number of bytes", "to", "from", "a rank", "tag, cpu, nic or the end of the line",
    "a label", "} before the end of the file", f"a number below {LARGEST:,}", "*/ before the end of the file",
    "cpu or the end of the line",
)  # fmt: skip
(E_TOP, E_NUMBER, E_OPEN, E_STATEMENT, E_AFTER_LABEL, E_OPERATION, E_BYTES, E_TO, E_FROM, E_PEER, E_OPTION, E_LABEL, E_CLOSE,
 E_LARGE, E_COMMENT, E_CPU) = range(1, 17)  # fmt: skip

# What ``state`` holds after a scan.
S_OPS, S_DEPS, S_BLOCKS, S_RANKS, S_AT, S_LINE, S_RANK, S_LABEL, S_LABEL_LENGTH, S_END = range(10)
STATE = 10


@kernel
def token(data: Any, n: int, at: int, out: Any) -> int:
    """Read the token at or behind ``at`` into out = [what, first byte, value or word code]; where the next may begin."""
    while at < n:
        c = data[at]
        if c == 32 or c == 9 or c == 13:
            at += 1
        elif c == 47 and at + 1 < n and data[at + 1] == 47:  # //
            while at < n and data[at] != 10:
                at += 1
        elif c == 47 and at + 1 < n and data[at + 1] == 42:  # /*
            out[1] = at
            at += 2
            while at + 1 < n and not (data[at] == 42 and data[at + 1] == 47):
                if data[at] == 10:
                    out[3] += 1
                at += 1
            if at + 1 >= n:
                out[0] = UNCLOSED
                return n
            at += 2
        else:
            break
    out[1] = at
    if at >= n:
        out[0] = END
        return at
    c = data[at]
    at += 1
    if c == 10 or c == 59:
        out[0] = STOP
        out[2] = c
    elif c == 123:
        out[0] = OPEN
    elif c == 125:
        out[0] = CLOSE
    elif c == 58:
        out[0] = COLON
    elif 48 <= c <= 57:
        value = c - 48
        while at < n and 48 <= data[at] <= 57:
            if value < LARGEST:
                value = value * 10 + data[at] - 48
            at += 1
        out[0] = NUMBER if value < LARGEST else TOO_LARGE
        out[2] = value
    elif c == 45 and at < n and data[at] == 49 and not (at + 1 < n and 48 <= data[at + 1] <= 57):
        out[0] = MINUS_ONE
        at += 1
    elif 65 <= c <= 90 or 97 <= c <= 122 or c == 95:
        code = c + 0
        length = 1
        while at < n:
            c = data[at]
            if not (65 <= c <= 90 or 97 <= c <= 122 or c == 95 or 48 <= c <= 57):
                break
            if length < 9:
                code = code * 128 + c
            length += 1
            at += 1
        out[0] = WORD
        out[2] = code if length <= 9 else 0
    else:
        out[0] = OTHER
    return at


@kernel
def scan(
    data: Any, n: int, kind: Any, size: Any, peer: Any, tag: Any, cpu: Any, nic: Any, rank_of: Any, line_of: Any,
    label: Any, label_length: Any, dep_start: Any, a: Any, a_length: Any, b: Any, b_length: Any, dep_rank: Any, dep_line: Any,
    block: Any, block_line: Any, out: Any, state: Any,
) -> int:  # fmt: skip
    """Statements of the text; 0, or what was expected (E_...) where ``state`` says."""
    at = 0
    line = 1
    rank = -1
    ops = 0
    deps = 0
    blocks = 0
    ranks = -1
    name = -1
    name_length = 0
    wrong = 0
    out[3] = 0
    while True:
        at = token(data, n, at, out)
        what = out[0]
        line += out[3]
        out[3] = 0
        name = -1
        name_length = 0
        if what == STOP:
            if out[2] == 10:
                line += 1
            continue
        if what == UNCLOSED:
            wrong = E_COMMENT
            break
        if what == END:
            if rank >= 0:
                wrong = E_CLOSE
            break
        if rank < 0:
            if what == WORD and out[2] == W_NUM_RANKS and ranks < 0:
                at = token(data, n, at, out)
                if out[0] != NUMBER:
                    wrong = E_LARGE if out[0] == TOO_LARGE else E_NUMBER
                    break
                ranks = out[2]
            elif what == WORD and out[2] == W_RANK and ranks >= 0:
                at = token(data, n, at, out)
                if out[0] != NUMBER:
                    wrong = E_LARGE if out[0] == TOO_LARGE else E_NUMBER
                    break
                rank = out[2]
                block[blocks] = rank
                block_line[blocks] = line
                blocks += 1
                at = token(data, n, at, out)
                while out[0] == STOP and out[2] == 10:
                    line += 1
                    at = token(data, n, at, out)
                if out[0] != OPEN:
                    wrong = E_OPEN
                    break
            else:
                wrong = E_TOP
                break
            continue
        if what == CLOSE:
            rank = -1
            continue
        if what != WORD:
            wrong = E_STATEMENT
            break
        word = out[2]
        if word != W_SEND and word != W_RECV and word != W_CALC:
            name = out[1]
            name_length = at - name
            at = token(data, n, at, out)
            if out[0] == WORD and (out[2] == W_REQUIRES or out[2] == W_IREQUIRES):
                dep_start[deps] = 1 if out[2] == W_IREQUIRES else 0
                at = token(data, n, at, out)
                if out[0] != WORD:
                    wrong = E_LABEL
                    break
                a[deps] = name
                a_length[deps] = name_length
                b[deps] = out[1]
                b_length[deps] = at - out[1]
                dep_rank[deps] = rank
                dep_line[deps] = line
                deps += 1
                at = token(data, n, at, out)
                if out[0] != STOP and out[0] != CLOSE:
                    wrong = E_OPTION if out[0] != END else E_CLOSE
                    break
                if out[0] == CLOSE:
                    rank = -1
                elif out[2] == 10:
                    line += 1
                continue
            if out[0] != COLON:
                wrong = E_AFTER_LABEL
                break
            at = token(data, n, at, out)
            if out[0] != WORD:
                wrong = E_OPERATION
                break
            word = out[2]
        what = SEND if word == W_SEND else (RECV if word == W_RECV else (CALC if word == W_CALC else 0))
        if what == 0:
            wrong = E_OPERATION
            break
        kind[ops] = what
        label[ops] = name
        label_length[ops] = name_length
        rank_of[ops] = rank
        line_of[ops] = line
        peer[ops] = -1
        tag[ops] = 0
        cpu[ops] = 0
        nic[ops] = 0
        at = token(data, n, at, out)
        if out[0] != NUMBER:
            wrong = E_LARGE if out[0] == TOO_LARGE else E_NUMBER
            break
        size[ops] = out[2]
        if what != CALC:
            at = token(data, n, at, out)
            if out[0] != WORD or out[2] != W_B:
                wrong = E_BYTES
                break
            at = token(data, n, at, out)
            if what == SEND and (out[0] != WORD or out[2] != W_TO):
                wrong = E_TO
                break
            if what == RECV and (out[0] != WORD or out[2] != W_FROM):
                wrong = E_FROM
                break
            at = token(data, n, at, out)
            if out[0] == NUMBER:
                peer[ops] = out[2]
            elif out[0] != MINUS_ONE or what == SEND:
                wrong = E_PEER
                break
        ops += 1
        at = token(data, n, at, out)
        while out[0] == WORD:
            option = out[2]
            if (option != W_CPU and option != W_NIC and option != W_TAG) or (what == CALC and option == W_TAG):
                break
            at = token(data, n, at, out)
            if out[0] == NUMBER:
                value = out[2]
            elif out[0] == MINUS_ONE and option == W_TAG:
                value = -1
            else:
                wrong = E_LARGE if out[0] == TOO_LARGE else E_NUMBER
                break
            if option == W_TAG:
                tag[ops - 1] = value
            elif option == W_CPU:
                cpu[ops - 1] = value
            else:
                nic[ops - 1] = value
            at = token(data, n, at, out)
        if wrong:
            break
        if out[0] == CLOSE:
            rank = -1
        elif out[0] == STOP:
            if out[2] == 10:
                line += 1
        else:
            wrong = E_CLOSE if out[0] == END else (E_CPU if what == CALC else E_OPTION)
            break
    state[S_OPS] = ops
    state[S_DEPS] = deps
    state[S_BLOCKS] = blocks
    state[S_RANKS] = ranks
    state[S_AT] = out[1]
    state[S_LINE] = line + out[3]
    state[S_RANK] = rank
    state[S_LABEL] = name
    state[S_LABEL_LENGTH] = name_length
    state[S_END] = at
    return wrong


@kernel
def find(data: Any, table: Any, mask: int, rank: int, at: int, length: int, rank_of: Any, label: Any, label_length: Any) -> int:
    """Slot of a rank's label in an open-addressed table of operations (entries are operation + 1), or of where it would be."""
    slot = rank & 0x3FFFFFFF
    for k in range(at, at + length):
        slot = (slot * 131 + data[k]) & 0x3FFFFFFF
    slot = (slot ^ (slot >> 11)) & mask
    while table[slot] > 0:
        op = table[slot] - 1
        if rank_of[op] == rank and label_length[op] == length:
            k = 0
            other = label[op]
            while k < length and data[at + k] == data[other + k]:
                k += 1
            if k == length:
                break
        slot = (slot + 1) & mask
    return slot


@kernel
def resolve(
    data: Any, ops: int, rank_of: Any, label: Any, label_length: Any, deps: int, dep_rank: Any, a: Any, a_length: Any, b: Any,
    b_length: Any, table: Any, mask: int, child: Any, parent: Any,
) -> int:  # fmt: skip
    """Operations of all labels; -1, or what is wrong: an operation whose label is taken, ops + 2 * dependency (+ 1) whose first
    (second) label is unknown."""
    for op in range(ops):
        if label[op] >= 0:
            slot = find(data, table, mask, rank_of[op], label[op], label_length[op], rank_of, label, label_length)
            if table[slot] > 0:
                return op
            table[slot] = op + 1
    for k in range(deps):
        slot = find(data, table, mask, dep_rank[k], a[k], a_length[k], rank_of, label, label_length)
        if table[slot] == 0:
            return ops + 2 * k
        child[k] = table[slot] - 1
        slot = find(data, table, mask, dep_rank[k], b[k], b_length[k], rank_of, label, label_length)
        if table[slot] == 0:
            return ops + 2 * k + 1
        parent[k] = table[slot] - 1
    return -1
