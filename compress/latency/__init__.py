"""How long a network takes on a phone's HTP: an estimate from its spec, with its error."""

from compress.latency.roofline import CHIPS, W8A16, Chip, Estimate, Precision, estimate, latency_of, seconds

__all__ = ["CHIPS", "W8A16", "Chip", "Estimate", "Precision", "estimate", "latency_of", "seconds"]
