"""The child process of `htp.compile_context`: compiles one file and prints time and peak memory as one JSON line.

python -m compress.quantization.htp_compile '{"model": ..., "folder": ..., "soc_model": 57, "optimization_mode": 3}'
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from compress.quantization.htp import HtpTarget, session


def compile_here(model: Path, folder: Path, target: HtpTarget) -> dict[str, float]:
    """Writes context.onnx, its binary and QNN's dump of the graph into `folder`; seconds and GB of this process."""
    import psutil

    dump = folder / "dump"
    dump.mkdir()
    start = time.perf_counter()
    session(
        model,
        target,
        ep__context_enable="1",
        ep__context_embed_mode="0",
        ep__context_file_path=str(folder / "context.onnx"),
        qnn__dump_json_qnn_graph="1",
        qnn__json_qnn_graph_dir=str(dump),
    )
    elapsed = time.perf_counter() - start
    memory = psutil.Process().memory_info()
    peak = getattr(memory, "peak_wset", None) or _peak_rss_bytes()
    return {"compile_s": elapsed, "peak_rss_gb": peak / 1e9}


def _peak_rss_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    where = Path(request.pop("model")), Path(request.pop("folder"))
    print(json.dumps(compile_here(*where, HtpTarget(**request))))
