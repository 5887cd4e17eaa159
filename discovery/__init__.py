"""Visual data discovery: from folders and buckets of pictures to versioned, explained dataset versions."""

__version__ = "0.1.0"
