"""Network parts, built once for students, teachers and priors alike."""
