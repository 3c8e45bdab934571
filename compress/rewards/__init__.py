"""Scorers of a picture against what was asked for: learned (differentiable) or exact (the verifier)."""
