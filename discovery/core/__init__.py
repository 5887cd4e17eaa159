"""Pure algorithms: arrays and tables in, arrays and tables out; no files, clock, network or global randomness."""
