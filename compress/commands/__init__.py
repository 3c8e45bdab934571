"""One file a subcommand of `pocketdiff`; imported by `compress.cli` only when the subcommand runs."""
