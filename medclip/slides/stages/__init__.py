"""The stages that slides go through: tissue, patches, vectors. Each is a run of `medclip.runs.conduct`."""
