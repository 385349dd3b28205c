"""What the families do, one file each: a job is a resolved request, from its admission to its reply."""
