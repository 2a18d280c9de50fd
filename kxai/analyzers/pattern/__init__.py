"""PatternNet and PatternAttribution, which are fitted to data."""
