"""No kernel reads or writes beside its buffers: each lies between pages that may not be touched.

Sanitizers look at loads and stores that the compiler sees; AMX's are not among them. A kernel that
strays dies here of a segmentation fault.
"""

import ctypes
import mmap

import numpy as np
import pytest

from pythia_fast.core import CpuEngine

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
PROT_NONE = 0


class Guarded:
    """Arrays that end where a page ends that nobody may touch, or begin where one does."""

    def __init__(self, at_end):
        self.at_end = at_end
        self._maps = []

    def __call__(self, shape, dtype=np.float32):
        count = int(np.prod(shape))
        size = count * np.dtype(dtype).itemsize
        pages = -(-size // PAGE) * PAGE
        memory = mmap.mmap(-1, pages + 2 * PAGE)
        self._maps.append(memory)
        first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (first, first + PAGE + pages):
            status = LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), PROT_NONE)
            assert status == 0, ctypes.get_errno()
        start = PAGE + (pages - size if self.at_end else 0)
        return np.frombuffer(memory, dtype, count, start).reshape(shape)


def padded(rows):
    return -(-rows // 32) * 32


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("stored", ["float32", "uint16", "float16"])
@pytest.mark.parametrize(
    ("D", "F", "V", "K", "H"),
    [(2, 2, 1, 2, 1), (34, 66, 33, 2, 17), (40, 30, 71, 8, 5), (96, 258, 100, 32, 3)],
)
def test_every_buffer_lies_between_forbidden_pages(native, at_end, stored, D, F, V, K, H):
    engine = CpuEngine(native.arithmetic, instructions=native.instructions)
    new, sequences, each = Guarded(at_end), 2, 3
    panels, value = sequences * each, engine.planes * engine.element_bytes
    tokens = panels * 16

    def operand(rows):
        return new((panels * padded(rows) * 16 * value,), np.uint8)

    def weight(rows, columns):
        return new((rows, columns), stored)

    x, rows = new((panels, D, 16)), new((tokens, D))
    ids = new((tokens,), np.int32)
    ids[:] = np.arange(tokens) % V
    engine.embed(weight(V, D), ids, x, panels, 2)
    engine.unpack(x, rows, panels, D, 2)
    picked, normed, second, branches = operand(D), operand(D), operand(D), operand(D + F)
    engine.pick(weight(V, D), ids, picked, 2)
    vectors = [new((D,)), new((D,))]
    engine.norm(x, 1e-5, vectors, vectors, [normed, second], D, 2)
    room = [new((sequences * H * 4 * 16 * padded(K) * value,), np.uint8) for _ in range(3)]
    tables = [new((K // 2, 48)), new((K // 2, 48))]
    shape = (sequences, H, K, each)
    qkv = weight(3 * H * K, D)
    engine.heads(normed, qkv, new((3 * H * K,)), *tables, K // 2 * 2, 48, *room, shape, 2)
    attended = operand(H * K)
    engine.attention(*room, shape, attended, H * K, 2)
    ends = new((sequences, 48), np.int32)
    ends[:] = np.maximum(np.arange(1, 49), 48 - 11 * np.arange(48) % 48)
    own = [new((K // 2, sequences * 48)), new((K // 2, sequences * 48))]
    positions = K // 2 * 2, sequences * 48
    engine.heads(
        *(normed, qkv, new((3 * H * K,)), *own, *positions, *room, shape, 2), each_its_own=True
    )
    engine.attention(*room, shape, attended, H * K, 2, ends=ends)
    engine.mlp(second, weight(F, D), new((F,)), "tanh", branches, D + F, D, 2)
    engine.residual(branches, weight(D, D + F), new((D,)), x, 2)
    engine.project(picked, weight(F, D), new((F,)), new((panels, F, 16)), 2)
    scores = [new((tokens,)) for _ in range(3)] + [new((tokens,), np.int64), new((tokens,))]
    engine.scores(normed, weight(V, D), ids, tokens, *scores, 2)
    for values in (x, rows, *scores):
        assert np.isfinite(values).all() or V == 1  # one logit has no margin
