"""From files to vectors: units read in processes of their own, encoded in batches beside each other."""
