"""A package, because some distributions install a package of this name, which would be found in its place."""
