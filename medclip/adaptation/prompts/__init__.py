"""Methods that learn the words, vectors in place of a prompt; wordings by hand are in `text`."""
