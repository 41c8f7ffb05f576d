"""Instructions of the processor that Numba has no word for, by LLVM's generic names: compress, prefetch.

Sixteen values at a time without the zeros among them are one instruction of AVX-512. Where the processor or LLVM lacks
it `kernels` leaves out zeros one by one.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTH = 16
"""Patterns of 32 bits in a register of 512."""
FIRST_LLVM = 19
"""The version that brought ``llvm.experimental.vector.compress``, which stands for the instruction."""
HAS_COMPRESS = (
    llvm.llvm_version_info[0] >= FIRST_LLVM
    and config.CPU_NAME is None
    and bool(llvm.get_host_cpu_features().get("avx512f"))
)
"""Whether compressing pays: it works on any processor, but without the instruction it is slow."""

_VECTOR = ir.VectorType(ir.IntType(32), WIDTH)
_MASK = ir.VectorType(ir.IntType(1), WIDTH)


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def compress(typing_context: Any, patterns: Any, begin: Any, kept: Any, end: Any) -> Any:
    """Copy those of ``patterns[begin:begin + 16]`` that are finite and not zero to ``kept[end:]``; return how many.

    All 16 places of ``kept`` from ``end`` on are written to.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (
            _place(context, builder, signature.args[i], arguments[i], arguments[i + 1]) for i in (0, 2)
        )
        values = builder.load(source)
        values.align = 4
        magnitudes = builder.and_(values, ir.Constant(_VECTOR, [0x7FFF_FFFF] * WIDTH))
        # Less one, zeros are the largest: one comparison finds them, NaN and infinities.
        less_one = builder.sub(magnitudes, ir.Constant(_VECTOR, [1] * WIDTH))
        chosen = builder.icmp_unsigned("<", less_one, ir.Constant(_VECTOR, [0x7F7F_FFFF] * WIDTH))
        shape = ir.FunctionType(_VECTOR, [_VECTOR, _MASK, _VECTOR])
        name = f"llvm.experimental.vector.compress.v{WIDTH}i32"
        compressed = cgutils.get_or_insert_function(builder.module, shape, name)
        dense = builder.call(compressed, [values, chosen, ir.Constant(_VECTOR, ir.Undefined)])
        builder.store(dense, target).align = 4
        return builder.zext(builder.ctpop(builder.bitcast(chosen, ir.IntType(WIDTH))), ir.IntType(64))

    return types.int64(patterns, begin, kept, end), generate


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def prefetch(typing_context: Any, patterns: Any, index: Any) -> Any:
    """Have the cache line of ``patterns[index]`` loaded while the processor goes on; any index is allowed."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if llvm.llvm_version_info[0] < FIRST_LLVM:  # which gave the function another name
            return context.get_dummy_value()
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
        builder.call(function, [pointer, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(patterns, index), generate


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())
