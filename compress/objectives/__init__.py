"""Training objectives as pure functions: tensors in, one unreduced loss per sample out.

No module, optimiser, random number or device in here; the stage draws noise and calls the networks.
"""
