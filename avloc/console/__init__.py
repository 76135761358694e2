"""Terminal output: progress and notices on standard error, results on standard output. The only user of Rich."""
