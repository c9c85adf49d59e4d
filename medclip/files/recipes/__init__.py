"""What people write down for medclip: recipes in YAML, KEY=VALUE, and medclip.toml."""
