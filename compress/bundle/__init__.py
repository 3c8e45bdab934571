"""The folder that goes to a phone: everything that makes and edits pictures, and how to call it; no float denoiser."""
