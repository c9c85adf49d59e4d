"""What a run is to do, decided before it reads a pixel: options, identity, shards; files in windows, their plan."""
