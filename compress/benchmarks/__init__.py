"""What `pocketdiff bench` measures: time and memory on inputs that are made for it, never from a timed test."""
