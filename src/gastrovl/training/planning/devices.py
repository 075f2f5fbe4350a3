"""What computing devices can do, from their makers' datasheets, and what this machine can, by a short measurement."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
GB = 10**9  # datasheets count so; drivers then report a few per cent more, which is left as a reserve


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        memory_bytes: Its own memory.
        half_flops: Dense bfloat16 matrix products with sums in float32, operations a second; where a device has no
            bfloat16 units, its float32 rate.
        float_flops: float32 outside the tensor cores, which is what torch uses unless told otherwise.
        link_bytes: To its neighbours, bytes a second in one direction.
    """

    name: str
    memory_bytes: int
    half_flops: float
    float_flops: float
    link_bytes: float
    is_cpu: bool = False

    def flops(self, is_mixed: bool) -> float:
        """Peak operations a second in the precision of a run."""
        return self.half_flops if is_mixed else self.float_flops


def _gpu(name: str, memory_gb: int, half_tflops: float, float_tflops: float, link_gb: float) -> Device:
    return Device(name, memory_gb * GB, half_tflops * 1e12, float_tflops * 1e12, link_gb * GB)


# Dense rates: datasheets that print "with sparsity" print twice these. A link's datasheet figure is for both
# directions together; half of it stands here. In the order: memory GB, bfloat16, float32 TFLOP/s, link GB/s.
DEVICES = (
    # NVIDIA H200 Tensor Core GPU datasheet, SXM: 141 GB HBM3e; BFLOAT16 1,979 with sparsity; FP32 67; NVLink 900 GB/s
    _gpu("H200", 141, 989, 67, 450),
    # NVIDIA H100 Tensor Core GPU datasheet, SXM: 80 GB HBM3; BFLOAT16 1,979 with sparsity; FP32 67; NVLink 900 GB/s
    _gpu("H100", 80, 989, 67, 450),
    # NVIDIA A100 Tensor Core GPU datasheet, SXM: 80 GB HBM2e or 40 GB HBM2; BFLOAT16 312; FP32 19.5; NVLink 600 GB/s
    _gpu("A100-80", 80, 312, 19.5, 300),
    _gpu("A100-40", 40, 312, 19.5, 300),
    # NVIDIA L4 Tensor Core GPU datasheet: 24 GB GDDR6; BFLOAT16 242 with sparsity; FP32 30.3; PCIe Gen4 x16, 64 GB/s
    _gpu("L4", 24, 121, 30.3, 32),
    # NVIDIA Ada GPU Architecture whitepaper, GeForce RTX 4090: 24 GB GDDR6X; BF16 with FP32 accumulate 165.2
    # (330.4 with sparsity); FP32 82.6; PCIe Gen4 x16, 64 GB/s, no NVLink
    _gpu("RTX 4090", 24, 165.2, 82.6, 32),
    # NVIDIA T4 datasheet: 16 GB GDDR6; FP32 8.1, FP16 65 and no bfloat16 units; PCIe Gen3 x16, 32 GB/s
    _gpu("T4", 16, 8.1, 8.1, 16),
)


def this_machine(seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter) -> Device:
    """The CUDA device torch would train on, or else the CPU; its rates by matrix products for about `seconds`.

    A measured rate is what large products reach and not a peak, so it stands above what training reaches all the same.
    """
    is_cuda = torch.cuda.is_available()
    place = torch.device("cuda" if is_cuda else "cpu")
    half, single = (_rate(place, dtype, seconds / 2, clock) for dtype in (torch.bfloat16, torch.float32))
    return Device("this machine", memory_here(), half, single, 16.0 * GB, is_cpu=not is_cuda)


def memory_here() -> int:
    """Bytes of the device that torch would train on: of the first GPU, or else what this process may use.

    0 where the system does not say.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    if not hasattr(os, "sysconf"):
        return 0
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CONTAINER_LIMIT.read_text(encoding="ascii").strip() if _CONTAINER_LIMIT.is_file() else "max"
    return min(whole, int(limit)) if limit.isdigit() else whole


def _rate(place: torch.device, dtype: torch.dtype, seconds: float, clock: Callable[[], float]) -> float:
    """Operations a second of square matrix products, the best of the rounds that fit into `seconds`."""
    side = 4096 if place.type == "cuda" else 512
    one = torch.ones(side, side, dtype=dtype, device=place)
    product = one @ one  # the first call sets things up
    best, start = float("inf"), clock()
    while clock() - start < seconds:
        before = clock()
        for _ in range(4):
            product = one @ one
        float(product[0, 0])  # waits until a GPU is done
        best = min(best, (clock() - before) / 4)
    return 2 * side**3 / best
