"""The child process of `htp_context`: compiles files and prints times and peak memory as one JSON line.

python -m compress.quantization.htp_compile '{"models": {"unet": ...}, "folder": ..., "soc_model": 57,
"optimization_mode": 3}'
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.memory import peak_rss_gb
from compress.quantization.htp import HtpTarget, session


def compile_here(models: Mapping[str, str], folder: Path, target: HtpTarget) -> dict[str, Any]:
    """Writes <model>.onnx, its binary and dump-<model>/ with QNN's account of the graph into `folder`; seconds of every
    model and GB of this process. Several models share their weights in one binary."""
    compile_s: dict[str, float] = {}
    sessions = []  # sharing ends with the first one that is closed
    for number, (name, model) in enumerate(models.items(), start=1):
        dump = folder / f"dump-{name}"
        dump.mkdir()
        start = time.perf_counter()
        options = {
            "ep__context_enable": "1",
            "ep__context_embed_mode": "0",
            "ep__context_file_path": str(folder / f"{name}.onnx"),
            "qnn__dump_json_qnn_graph": "1",
            "qnn__json_qnn_graph_dir": str(dump),
        }
        if len(models) > 1:
            options |= {"ep__share_ep_contexts": "1", "qnn__enable_htp_weight_sharing": "1"}
            if number == len(models):
                options["ep__stop_share_ep_contexts"] = "1"
        sessions.append(session(Path(model), target, **options))
        compile_s[name] = time.perf_counter() - start
    return {"compile_s": compile_s, "peak_rss_gb": peak_rss_gb()}


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    where = request.pop("models"), Path(request.pop("folder"))
    print(json.dumps(compile_here(*where, HtpTarget(**request))))
