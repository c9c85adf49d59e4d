"""Groups of options that verbs share: each stands once; see `medclip.options`. A verb takes those it needs as bases."""
