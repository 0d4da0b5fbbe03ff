"""Intrinsics of the gridding loops: a sample's 4 x 4 taps as vectors of 4 * lanes floats, one a row of the grid.

The compiler turns loops shorter than a vector into scalar code; here the vector's length is part of the type, for any batch
and processor. Arrays are flat float32; a cell of the grid is `lanes` floats (literal), a complex number two neighbours.
Cached loops do not see a change here: touch the files that call these (spread.py, backproject.py), or they stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

__all__ = ["between", "collect", "deposit", "parted"]

FLOAT = ir.FloatType()
TAPS = 4
FAST = ("fast",)


def _vector(size: int) -> Any:
    return ir.VectorType(FLOAT, size)


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
    return builder.shuffle_vector(a, b, mask)


def _splat(builder: Any, value: Any, size: int) -> Any:
    one = builder.insert_element(ir.Constant(_vector(size), ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return _shuffle(builder, one, one, [0] * size)


def _place(builder: Any, array: Any, at: Any, size: int) -> Any:
    return builder.bitcast(builder.gep(array.data, [at]), _vector(size).as_pointer())


def _load(builder: Any, array: Any, at: Any, size: int) -> Any:
    return builder.load(_place(builder, array, at, size), align=4)


def _times(builder: Any, z: Any, r: Any, i: Any, lanes: int) -> Any:
    """Complex numbers z times r + i j."""
    swapped = _shuffle(builder, z, z, [k ^ 1 for k in range(lanes)])
    turned = builder.fmul(swapped, _splat(builder, i, lanes), flags=FAST)
    signs = ir.Constant(_vector(lanes), [-1.0, 1.0] * (lanes // 2))
    turned = builder.fmul(turned, signs, flags=FAST)
    return builder.fadd(builder.fmul(z, _splat(builder, r, lanes), flags=FAST), turned, flags=FAST)


def _weights(builder: Any, table: Any, entry: Any) -> Any:
    return _load(builder, table, builder.mul(entry, ir.Constant(entry.type, TAPS)), TAPS)


def _rows(builder: Any, at: Any, stride: Any) -> list[Any]:
    rows = [at]
    for _ in range(TAPS - 1):
        rows.append(builder.add(rows[-1], stride))
    return rows


def _weight(builder: Any, four: Any, k: int, size: int) -> Any:
    return _shuffle(builder, four, four, [k] * size)


def _signature(grid: Any, line: Any, table: Any, lanes: Any) -> Any:
    f, u = types.float32, types.uintp
    return types.void(grid, u, u, line, u, f, f, table, u, u, lanes)


def _deposit(
    typing: Any,
    grid: Any,
    at: Any,
    stride: Any,
    line: Any,
    source: Any,
    r: Any,
    i: Any,
    table: Any,
    jx: Any,
    jy: Any,
    lanes: Any,
) -> Any:
    """Add line[source ..] times r + i j to the 4 x 4 cells from `at` on, weighted by rows jx and jy of the table."""
    sig = _signature(grid, line, table, lanes)
    n = lanes.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        grid, line, table = (context.make_array(sig.args[k])(context, builder, args[k]) for k in (0, 3, 7))
        z = _times(builder, _load(builder, line, args[4], n), args[5], args[6], n)
        wx, wy = (_weights(builder, table, args[k]) for k in (8, 9))
        wx = _shuffle(builder, wx, wx, [k // n for k in range(TAPS * n)])
        row = builder.fmul(_shuffle(builder, z, z, [k % n for k in range(TAPS * n)]), wx, flags=FAST)
        for k, place in enumerate(_rows(builder, args[1], args[2])):
            old = _load(builder, grid, place, TAPS * n)
            new = builder.fadd(old, builder.fmul(row, _weight(builder, wy, k, TAPS * n), flags=FAST), flags=FAST)
            builder.store(new, _place(builder, grid, place, TAPS * n), align=4)
        return context.get_dummy_value()

    return sig, codegen


def _collect(
    typing: Any,
    grid: Any,
    at: Any,
    stride: Any,
    line: Any,
    target: Any,
    r: Any,
    i: Any,
    table: Any,
    jx: Any,
    jy: Any,
    lanes: Any,
) -> Any:
    """The transpose: line[target ..] becomes r + i j times the weighted sum of the 4 x 4 cells from `at` on."""
    sig = _signature(grid, line, table, lanes)
    n = lanes.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        grid, line, table = (context.make_array(sig.args[k])(context, builder, args[k]) for k in (0, 3, 7))
        wx, wy = (_weights(builder, table, args[k]) for k in (8, 9))
        wx = _shuffle(builder, wx, wx, [k // n for k in range(TAPS * n)])
        total: Any = None
        for k, place in enumerate(_rows(builder, args[1], args[2])):
            part = builder.fmul(_load(builder, grid, place, TAPS * n), _weight(builder, wy, k, TAPS * n), flags=FAST)
            total = part if total is None else builder.fadd(total, part, flags=FAST)
        total = builder.fmul(total, wx, flags=FAST)
        for size in (2 * n, n):
            halves = [_shuffle(builder, total, total, range(k, k + size)) for k in (0, size)]
            total = builder.fadd(*halves, flags=FAST)
        builder.store(_times(builder, total, args[5], args[6], n), _place(builder, line, args[4], n), align=4)
        return context.get_dummy_value()

    return sig, codegen


def _between(typing: Any, out: Any, to: Any, row: Any, at: Any, share: Any, lanes: Any) -> Any:
    """out[to ..] += (1 - share) row[at ..] + share row[at + lanes ..]: linear interpolation of `lanes` numbers."""
    n = lanes.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        out, row = (context.make_array(sig.args[k])(context, builder, args[k]) for k in (0, 2))
        low = _load(builder, row, args[3], n)
        high = _load(builder, row, builder.add(args[3], ir.Constant(args[3].type, n)), n)
        step = builder.fmul(_splat(builder, args[4], n), builder.fsub(high, low, flags=FAST), flags=FAST)
        old = builder.fadd(_load(builder, out, args[1], n), low, flags=FAST)
        builder.store(builder.fadd(old, step, flags=FAST), _place(builder, out, args[1], n), align=4)
        return context.get_dummy_value()

    u = types.uintp
    return types.void(out, u, row, u, types.float32, lanes), codegen


def _parted(typing: Any, line: Any, source: Any, row: Any, at: Any, share: Any, lanes: Any) -> Any:
    """The transpose: line[source ..] parted between row[at ..] and row[at + lanes ..]."""
    n = lanes.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        line, row = (context.make_array(sig.args[k])(context, builder, args[k]) for k in (0, 2))
        value = _load(builder, line, args[1], n)
        part = builder.fmul(_splat(builder, args[4], n), value, flags=FAST)
        beyond = builder.add(args[3], ir.Constant(args[3].type, n))
        for place, new in ((args[3], builder.fsub(value, part, flags=FAST)), (beyond, part)):
            total = builder.fadd(_load(builder, row, place, n), new, flags=FAST)
            builder.store(total, _place(builder, row, place, n), align=4)
        return context.get_dummy_value()

    u = types.uintp
    return types.void(line, u, row, u, types.float32, lanes), codegen


deposit: Any = intrinsic(prefer_literal=True)(_deposit)
collect: Any = intrinsic(prefer_literal=True)(_collect)
between: Any = intrinsic(prefer_literal=True)(_between)
parted: Any = intrinsic(prefer_literal=True)(_parted)
