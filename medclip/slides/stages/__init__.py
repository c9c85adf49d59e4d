"""The stages of a folder of slides: tissue, patches, vectors; where vectors lie afterwards is `slide_store`."""
