"""What a run is to do, decided before it reads a pixel: options, identity, the plan of a window, shards of machines."""
