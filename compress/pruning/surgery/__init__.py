"""One operator a file. `OPERATORS` lists them in the order of SnapGen and DreamLite (facts 1.5)."""

from compress.pruning.surgery.base import Bench, Draft, Operator
from compress.pruning.surgery.cross_attention import CROSS_ATTENTION
from compress.pruning.surgery.depth import DEPTH
from compress.pruning.surgery.multi_query import MULTI_QUERY
from compress.pruning.surgery.narrow import FEED_FORWARD, WIDTH
from compress.pruning.surgery.qk_norm import QK_NORM
from compress.pruning.surgery.self_attention import SELF_ATTENTION
from compress.pruning.surgery.separable import SEPARABLE
from compress.pruning.surgery.size_embedding import SIZE_EMBEDDING
from compress.pruning.surgery.text_projection import TEXT_PROJECTION

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        DEPTH,
        WIDTH,
        SELF_ATTENTION,
        SEPARABLE,
        MULTI_QUERY,
        FEED_FORWARD,
        CROSS_ATTENTION,
        QK_NORM,
        TEXT_PROJECTION,
        SIZE_EMBEDDING,
    )
}

__all__ = ["OPERATORS", "Bench", "Draft", "Operator"]
