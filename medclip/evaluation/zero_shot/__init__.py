"""A pack measured on suites of labelled sets, in words alone; its heads and splits of shards lie beside."""
