"""From stored values to modality units and to what a person is meant to see; codecs are beside."""
