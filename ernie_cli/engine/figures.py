"""What TensorRT itself needs beyond a graph's own bytes: constants and small rules, each measured. Computes nothing from graphs.

Measured on builds with TensorRT-RTX 1.7 for compute capability 8.9 on x86-64 Linux: nano and ERNIE-4.5-0.3B's shapes in fp16, int8,
fp8 and int4 over batches, contexts and prompt lengths, four vision models in fp32 (tests/bench/bench_build.py; RESULTS.md has the
errors that are left). What says "assumption" could not be measured: there was no GPU.
"""

from __future__ import annotations

#: What CUDA takes on a device for one process: its context, loaded kernels, heaps. An assumption.
CONTEXT_BYTES = 400 << 20

#: Scratch memory of a product or convolution; seen in every profile but those of lone tokens and small weights. 8000 KiB.
PRODUCT_BYTES = 8_192_000
#: A product of one row with a weight of fewer elements takes none: it is a dot product per output.
SMALL_WEIGHT = 1 << 20

#: Code and tables in a plan: of the engine as a whole, and for each value that a kernel writes. Convolutions bring none: their
#: kernels are the library's.
CODE_BYTES, KERNEL_BYTES = 300_000, 57_000

#: Plans of small models were seen to be a sixth larger than foreseen: their disk must be free.
PLAN_MARGIN = 1.2

#: Memory of the process that builds: the library, what it allocates at once and the 64 MiB pieces that the plan is written in
#: (listen.py); per value that a kernel writes, of every profile. Above that it holds the constants as they lie in the file (mapped,
#: or parsed, see `host_peak`), a copy, and all that the engine keeps.
HOST_BYTES, HOST_KERNEL_BYTES = 300 << 20, 800 << 10
#: Copies of a graph file with weights inside, when most memory is taken.
FILE_COPIES = 2

#: Weights of products are kept a second time, laid out otherwise, where one profile is of one shape alone and another of several
#: (0.86 to 0.95 of their bytes). 4-bit weights are not.
SECOND_LAYOUT = 0.9


def plan_bytes(weight_bytes: int, kernels: int) -> int:
    """The plan file. kernels: values that some kernel other than a convolution writes, of all profiles together."""
    return weight_bytes + CODE_BYTES + KERNEL_BYTES * kernels


def host_peak(constant_bytes: int, weight_bytes: int, values: int, embedded_bytes: int) -> int:
    """Most memory of the process that builds. constant_bytes: of the graph, embedded_bytes: of the file that has them inside, else 0.

    weight_bytes: of the engine. values: that kernels write, of all profiles together.
    """
    read = FILE_COPIES * embedded_bytes or constant_bytes
    return HOST_BYTES + HOST_KERNEL_BYTES * values + read + constant_bytes + weight_bytes
