"""Which patches of a slide get a caption: those that attributes or findings ask for, and some of each kind."""
