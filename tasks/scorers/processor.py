"""What the processor can do, told without importing torch."""

from __future__ import annotations

import functools
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
"""Flags of processors on which products in bfloat16 take half the time of those in float32, or less."""


@functools.cache
def multiplies_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor has instructions for products in bfloat16 (AVX512-BF16 or AMX).

    Every core has to have them. Where the system does not tell (no Linux), it has not.
    """
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return bool(flags) and all(_BFLOAT16 & one for one in flags)
