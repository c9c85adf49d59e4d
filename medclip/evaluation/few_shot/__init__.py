"""Ways of adapting compared on the same shots and the same test patients; the methods are in `adaptation`."""
