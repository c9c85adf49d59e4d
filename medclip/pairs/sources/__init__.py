"""Where pairs come from: tables of labels and of published sets, and whole slides; not what their words may say."""
