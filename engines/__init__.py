"""From a model file to an engine a width. Nothing here needs torch."""
