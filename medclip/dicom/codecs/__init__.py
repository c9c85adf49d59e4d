"""Transfer syntaxes, the codecs that decode them, and what a codestream says of itself; no header but the syntax."""
