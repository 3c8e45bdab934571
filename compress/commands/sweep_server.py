"""`pocketdiff sweep-server STORAGE`: one process that speaks to the database for any number of workers."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from compress.errors import UserError


def main(options: argparse.Namespace) -> int:
    """Serves until it is interrupted; workers reach it with `--storage grpc://HOST:PORT`."""
    from compress.sweep.storage import open_storage, public

    url = options.storage
    if url.partition("://")[0] in ("journal", "grpc"):  # github.com/optuna/optuna/issues/6084
        remedy = "Give a database: sqlite:///FILE for tens of workers, postgresql://... for more."
        raise UserError.of(f"the proxy cannot stand in front of {public(url)}", "sweep-server", remedy)
    if not 0 < options.port < 65536:
        raise UserError.of(f"port is {options.port}", "--port", "Give a number from 1 to 65535.")
    try:
        import grpc  # noqa: F401 - so that its absence is told here
    except ImportError:
        remedy = "Install it with `pip install 'pocketdiff[grpc]'`."
        raise UserError.of("gRPC is not installed", "sweep-server", remedy) from None
    import optuna

    storage = optuna.storages.get_storage(open_storage(url, Path()))
    logging.getLogger("optuna").setLevel(logging.WARNING)
    print(f"{public(url)} is served at grpc://{options.host}:{options.port}", file=sys.stderr, flush=True)
    try:
        optuna.storages.run_grpc_proxy_server(storage, host=options.host, port=options.port)
    except RuntimeError as error:
        remedy = "Give another --port or --host."
        raise UserError.of(
            f"the address cannot be served ({error})", f"{options.host}:{options.port}", remedy
        ) from None
    return 0
