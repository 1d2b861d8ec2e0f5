"""Memory that is freed and wanted again a moment later."""

import torch

# glibc learns from blocks of up to 32 MiB, in bytes; a little of that is its own.
LEARNT_FROM = 2**25 - 2**16


def keep_freed_memory() -> None:
    """Have the C library keep what a pass of the network frees for the next one, up to 64 MiB.

    glibc hands freed memory back to the system once it is more than twice the largest block ever freed (mallopt(3),
    M_TRIM_THRESHOLD). To get it again, page by page, takes up to as long as the pass of a small network. So a large block is
    taken, which costs nothing while nobody writes to it, and freed. Other C libraries go on as they are.
    """
    torch.empty(LEARNT_FROM, dtype=torch.uint8)
