"""Run a module whose processes share one GPU: `python -m tests.gpu.by_gloo MODULE ARGUMENTS`.

NCCL refuses two processes on one GPU, so all collectives go through gloo.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import torch.distributed as dist


def main() -> None:
    """Run the module as `python -m` would."""
    init = dist.init_process_group

    def init_by_gloo(_backend: str = "", **named: Any) -> None:
        init("gloo", **{name: value for name, value in named.items() if name != "backend"})

    dist.init_process_group = init_by_gloo
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
